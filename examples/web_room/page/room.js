// The page: sign in, get a token from the application's own endpoint, join, list the participants.
// Tokens stay in livekit-client's TokenSource: never in the URL, in storage or in the console.
import { ConnectionErrorReason, ConnectionState, Room, RoomEvent, TokenSource, Track } from "livekit-client";

const at = (id) => document.getElementById(id);
const source = TokenSource.endpoint("/livekit/token-source", { credentials: "same-origin" });
let room = null;
let asked = null;

// --- what is shown ---

function show(id) {
  for (const part of ["sign-in", "join", "room"]) at(part).hidden = part !== id;
}

function say(text) {
  at("status").textContent = text;
}

function problem(title, text = "", id = "") {
  at("problem-title").textContent = title;
  at("problem-text").textContent = text;
  at("problem-id").textContent = id && `For support: decision ${id}`;
  at("problem").hidden = !title;
  if (title) {
    say("");
    at("problem").focus();
  }
}

const TITLES = {
  400: "That doesn't work",
  401: "You are signed out",
  403: "You may not join this room",
  429: "Too many attempts",
  503: "The service is unavailable for a moment",
};

// livekit-client puts the endpoint's answer into the error's text: "… received 403 / {…}".
function tokenProblem(error) {
  const [, status, body] = /received (\d{3}) \/ (.*)$/s.exec(error.message) ?? [];
  if (!status) return problem("The application can't be reached", "Check your connection, then try again.");
  let answer = {};
  try {
    answer = JSON.parse(body);
  } catch {
    // Not the endpoint's answer: a proxy's page, or no answer at all.
  }
  const fields = Object.entries(answer.fields ?? {}).map(([field, what]) => `${field.replaceAll("_", " ")} ${what}`);
  const detail = typeof answer.detail === "string" ? answer.detail : "Try again in a moment.";
  problem(TITLES[status] ?? "No token", [detail, ...fields].join("; "), answer.decision_id);
  if (status === "401") showSignIn();
}

// --- signing in ---

function showSignIn() {
  at("who").hidden = true;
  show("sign-in");
}

function showJoin(user) {
  at("user").textContent = user;
  at("who").hidden = false;
  show("join");
  say("");
}

async function signIn(event) {
  event.preventDefault();
  const answer = await fetch("/sign-in", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ user: at("sign-in-user").value }),
  });
  const body = await answer.json();
  if (!answer.ok) return problem(TITLES[answer.status] ?? "You can't sign in", String(body.detail));
  problem("");
  showJoin(body.user);
  at("join-room").focus();
}

async function signOut() {
  await room?.disconnect();
  await fetch("/sign-out", { method: "POST" });
  problem("");
  showSignIn();
  say("You are signed out.");
  at("sign-in-user").focus();
}

// --- joining ---

async function join(event) {
  event.preventDefault();
  const form = new FormData(at("join"));
  const name = form.get("name").trim();
  asked = { roomName: form.get("room").trim(), ...(name && { participantName: name }) };
  problem("");
  say("Joining…");
  const button = at("join").querySelector("button");
  button.disabled = true;
  try {
    const token = await fetchToken();
    if (token) await connect(token);
  } finally {
    button.disabled = false;
  }
}

// Returns a token for the request: the cached one while it is valid, or a new one if `force`.
async function fetchToken(force = false) {
  try {
    const token = await source.fetch(asked, force);
    const { exp } = source.getCachedResponseJwtPayload();
    const time = new Date(exp * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    at("expiry").textContent = `Your token lets you join until ${time}.`;
    at("expiry").dataset.exp = exp;
    return token;
  } catch (error) {
    tokenProblem(error);
    return null;
  }
}

async function connect({ serverUrl, participantToken }) {
  // Use two peer connections, which every LiveKit server supports; older servers refuse a single one first.
  room = new Room({ adaptiveStream: true, dynacast: true, singlePeerConnection: false });
  for (const change of [
    RoomEvent.ParticipantConnected,
    RoomEvent.ParticipantDisconnected,
    RoomEvent.TrackSubscribed,
    RoomEvent.TrackUnsubscribed,
    RoomEvent.TrackMuted,
    RoomEvent.TrackUnmuted,
    RoomEvent.LocalTrackPublished,
    RoomEvent.LocalTrackUnpublished,
  ]) {
    room.on(change, draw);
  }
  room.on(RoomEvent.ParticipantConnected, (person) => say(`${title(person)} has joined.`));
  room.on(RoomEvent.ParticipantDisconnected, (person) => say(`${title(person)} has left.`));
  room.on(RoomEvent.Reconnecting, () => say("Connection lost. Reconnecting…"));
  room.on(RoomEvent.Reconnected, () => say("Reconnected."));
  room.on(RoomEvent.Disconnected, left);
  try {
    await room.connect(serverUrl, participantToken);
  } catch (error) {
    room = null;
    return connectProblem(error, new URL(serverUrl).host);
  }
  at("room-title").textContent = `Room ${room.name}`;
  show("room");
  say("You have joined.");
  draw();
  at("room-title").focus();
  await Promise.all([turn("microphone", true), turn("camera", true)]);
}

// If the server refuses the page, livekit-client asks it for the reason.
function connectProblem({ reason }, host) {
  if (reason === ConnectionErrorReason.NotAllowed) {
    return problem("LiveKit refused your token", "It doesn't know the key that signed it, or the token has expired.");
  }
  if (reason === ConnectionErrorReason.Cancelled) return say("");
  if ([ConnectionErrorReason.ServerUnreachable, ConnectionErrorReason.Timeout].includes(reason)) {
    return problem("LiveKit can't be reached", `${host} doesn't answer. Try again in a moment.`);
  }
  problem("The connection to LiveKit failed", `${host} sent an unexpected answer. Try again in a moment.`);
}

function left() {
  room = null;
  at("people").replaceChildren();
  showJoin(at("user").textContent);
  say("You have left the room.");
  at("join-room").focus();
}

async function renew() {
  problem("");
  if (await fetchToken(true)) say("You have a new token. It is used when you join again.");
}

// --- devices ---

const DEVICES = {
  microphone: { is: "isMicrophoneEnabled", set: "setMicrophoneEnabled" },
  camera: { is: "isCameraEnabled", set: "setCameraEnabled" },
};

async function turn(device, on) {
  try {
    await room.localParticipant[DEVICES[device].set](on);
  } catch {
    problem(`No ${device}`, `Allow this page to use your ${device}, then try again.`);
  }
  draw();
}

function toggle(device) {
  return () => room && turn(device, !room.localParticipant[DEVICES[device].is]);
}

// --- the people ---

function title(person) {
  return person.name || person.identity;
}

function draw() {
  if (room?.state !== ConnectionState.Connected) return;
  const people = [room.localParticipant, ...room.remoteParticipants.values()];
  at("people").replaceChildren(...people.map(tile));
  for (const [device, { is }] of Object.entries(DEVICES)) {
    at(device).setAttribute("aria-pressed", room.localParticipant[is]);
  }
}

function tile(person) {
  const item = at(`person-${person.identity}`) ?? document.createElement("li");
  item.id = `person-${person.identity}`;
  const caption = document.createElement("div");
  caption.className = "caption";
  const name = document.createElement("strong");
  name.textContent = person.isLocal ? `${title(person)} (you)` : title(person);
  const sound = document.createElement("span");
  sound.textContent = person.isMicrophoneEnabled ? "Microphone on" : "Microphone off";
  caption.append(name, sound);
  item.replaceChildren(...media(person), caption);
  return item;
}

function media(person) {
  const tracks = [person.getTrackPublication(Track.Source.Camera), person.getTrackPublication(Track.Source.Microphone)];
  return tracks
    .map((publication) => publication?.track)
    .filter((track) => track && !track.isMuted && !(person.isLocal && track.kind === Track.Kind.Audio))
    .map((track) => {
      const element = track.attachedElements[0] ?? track.attach();
      if (track.kind === Track.Kind.Video) element.setAttribute("aria-label", `Video of ${title(person)}`);
      return element;
    });
}

// --- start ---

at("sign-in").addEventListener("submit", signIn);
at("sign-out").addEventListener("click", signOut);
at("join").addEventListener("submit", join);
at("leave").addEventListener("click", () => room?.disconnect());
at("renew").addEventListener("click", renew);
for (const device of Object.keys(DEVICES)) at(device).addEventListener("click", toggle(device));

const me = await fetch("/me");
if (me.ok) showJoin((await me.json()).user);
else showSignIn();
say("");
