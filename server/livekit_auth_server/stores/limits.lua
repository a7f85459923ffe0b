-- The moving windows of core/limits.py in Redis: all of a call's charges are counted, or none.
--
-- KEYS: one window each. ARGV: for each window its limit's amount, its seconds and what the call costs it.
-- Returns {0, 0}, or the number of the window to wait for and the microseconds until the cost fits there.
--
-- A window is a hash. Its runs, calls close together, are fields numbered from `head` to `tail`: "first last cost", times
-- in microseconds of the Redis server's clock. `used` is what all of them cost.
local GRAINS = 256
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function get(key, number)
  local first, last, cost = string.match(redis.call('HGET', key, number), '^(%d+) (%d+) (%d+)$')
  return {first = tonumber(first), last = tonumber(last), cost = tonumber(cost)}
end

local function set(key, number, run)
  redis.call('HSET', key, number, string.format('%.0f %.0f %.0f', run.first, run.last, run.cost))
end

local function save(window)
  redis.call('HSET', window.key, 'head', window.head, 'tail', window.tail, 'used', window.used)
end

local function open(key, amount, seconds, cost)
  local state = redis.call('HMGET', key, 'head', 'tail', 'used')
  return {
    key = key, amount = amount, span = seconds * 1000000, cost = cost,
    head = tonumber(state[1]) or 1, tail = tonumber(state[2]) or 0, used = tonumber(state[3]) or 0,
  }
end

-- After a clock was set back, what was counted keeps its distance from the newest of it, which is now.
local function mend(window)
  if window.head > window.tail then return end
  local ahead = get(window.key, window.tail).last - now
  if ahead <= 0 then return end
  for number = window.head, window.tail do
    local run = get(window.key, number)
    run.first, run.last = math.max(run.first - ahead, 0), math.max(run.last - ahead, 0)
    set(window.key, number, run)
  end
end

local function forget(window)
  local head = window.head
  while window.head <= window.tail do
    local run = get(window.key, window.head)
    if run.last + window.span > now then break end
    redis.call('HDEL', window.key, window.head)
    window.used, window.head = window.used - run.cost, window.head + 1
  end
  if window.head ~= head then save(window) end
end

local function wait(window)
  local excess, number = window.used + window.cost - window.amount, window.head
  local run
  while excess > 0 and number <= window.tail do
    run = get(window.key, number)
    excess, number = excess - run.cost, number + 1
  end
  return run and run.last + window.span - now or 0
end

local function add(window)
  local run = window.head <= window.tail and get(window.key, window.tail)
  if run and now - run.first < window.span / GRAINS then
    run.last, run.cost = now, run.cost + window.cost
  else
    window.tail = window.tail + 1
    run = {first = now, last = now, cost = window.cost}
  end
  window.used = window.used + window.cost
  set(window.key, window.tail, run)
  save(window)
  redis.call('PEXPIRE', window.key, window.span / 1000 + 1000)
end

local windows, which, longest = {}, 0, 0
for i, key in ipairs(KEYS) do
  local window = open(key, tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]))
  mend(window)
  forget(window)
  local waiting = wait(window)
  if waiting > longest then which, longest = i, waiting end
  windows[i] = window
end
if which == 0 then
  for _, window in ipairs(windows) do add(window) end
end
return {which, longest}
