"""The chart renders valid manifests that run the server with as few rights as it needs, and takes no secret."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest

from deploy.chart import CHART, GID, UID, VARIANTS, RefusedError, Rendered, helm, values_of
from deploy.helm_program import MODULE

KUBERNETES = ["1.34.0", "1.35.0", "1.36.0", "1.37.0"]
CUSTOM = {"Certificate", "ServiceMonitor", "PrometheusRule"}  # their schemas aren't Kubernetes' own
SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": UID,
    "runAsGroup": GID,
    "fsGroup": GID,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_VOLUMES = {"projected", "csi"}  # of those that the restricted Pod Security Standard lets in


@pytest.fixture(scope="module", params=VARIANTS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return Rendered.variant(request.param)


def test_the_variants_are_the_ones_that_are_documented() -> None:
    assert VARIANTS == ["autoscaling", "cert-manager", "default", "no-persistence", "redis", "spire"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_lint_finds_nothing(variant: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, "--values", values_of(variant))


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_manifest_is_valid_in_kubernetes(rendered: Rendered, version: str) -> None:
    for manifest in rendered.manifests:
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_every_object_is_the_releases_and_labelled(rendered: Rendered) -> None:
    for manifest in rendered.manifests:
        assert manifest["metadata"]["namespace"] == "media"
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == "livekit-auth"


def test_the_pod_meets_the_restricted_pod_security_standard(rendered: Rendered) -> None:
    assert rendered.pod["securityContext"] == SECURITY
    assert rendered.container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & rendered.pod.keys()
    for volume in rendered.pod["volumes"]:
        assert volume.keys() - {"name"} <= RESTRICTED_VOLUMES


def test_no_token_of_the_kubernetes_api_is_in_the_pod(rendered: Rendered) -> None:
    assert rendered.pod["automountServiceAccountToken"] is False
    assert rendered.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert rendered.pod["serviceAccountName"] == rendered.one("ServiceAccount")["metadata"]["name"]


def test_what_is_mounted_can_be_read_by_the_servers_group_and_by_nobody_else(rendered: Rendered) -> None:
    (volume,) = [volume for volume in rendered.pod["volumes"] if "projected" in volume]
    assert volume["projected"]["defaultMode"] == 0o440
    assert all("mode" not in item for source in volume["projected"]["sources"] for item in items(source))
    (mount,) = [mount for mount in rendered.container["volumeMounts"] if mount["name"] == volume["name"]]
    assert mount == {"name": "configuration", "mountPath": "/etc/livekit-auth", "readOnly": True}  # no subPath: reloads


def items(source: dict[str, Any]) -> list[dict[str, Any]]:
    (reference,) = source.values()
    return reference["items"]


def test_only_the_audit_volume_can_be_written(rendered: Rendered) -> None:
    writable = [mount["name"] for mount in rendered.container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == (["audit"] if rendered.workload["kind"] == "StatefulSet" else [])


def test_probes_ask_the_metrics_listener(rendered: Rendered) -> None:
    ports = {port["name"]: port["containerPort"] for port in rendered.container["ports"]}
    assert ports == {"grpc": 7443, "metrics": 9464}
    paths = {name: rendered.container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {
        "startupProbe": {"path": "/livez", "port": "metrics"},
        "livenessProbe": {"path": "/livez", "port": "metrics"},
        "readinessProbe": {"path": "/readyz", "port": "metrics"},
    }
    assert (rendered.settings["listen"], rendered.settings["metrics"]) == ("0.0.0.0:7443", "0.0.0.0:9464")


@pytest.mark.parametrize(("drain", "sleep"), [(30, 5), (300, 0), (0, 20)])
def test_a_stop_leaves_time_for_the_sleep_and_the_drain(drain: int, sleep: int) -> None:
    rendered = Rendered.variant("default", drain=drain, preStopSleep=sleep)
    assert rendered.pod["terminationGracePeriodSeconds"] >= drain + sleep + 10
    assert rendered.settings["drain"] == drain
    assert ("lifecycle" in rendered.container) == bool(sleep)


def test_selectors_agree(rendered: Rendered) -> None:
    labels = rendered.workload["spec"]["template"]["metadata"]["labels"].items()
    selectors = [rendered.workload["spec"]["selector"]["matchLabels"], rendered.one("Service")["spec"]["selector"]]
    selectors.append(rendered.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    selectors.append(rendered.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
    selectors += [spread["labelSelector"]["matchLabels"] for spread in rendered.pod["topologySpreadConstraints"]]
    assert all(selector and selector.items() <= labels for selector in selectors)


def test_the_audit_trail_has_a_volume_a_pod_which_outlives_it() -> None:
    spec = Rendered.variant("default").one("StatefulSet")["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert Rendered.variant("default").settings["audit"] == {"path": "/var/lib/livekit-auth/audit", "required": True}


def test_without_a_volume_nothing_pretends_that_the_trail_is_durable() -> None:
    rendered = Rendered.variant("no-persistence")
    assert rendered.workload["kind"] == "Deployment"
    assert "audit" not in rendered.settings


def test_the_service_leads_to_the_pods_and_not_to_one_address() -> None:
    assert Rendered.variant("default").one("Service")["spec"]["clusterIP"] == "None"
    assert "clusterIP" not in Rendered.variant("autoscaling").one("Service")["spec"]


def test_the_autoscaler_has_the_replicas_to_itself() -> None:
    rendered = Rendered.variant("autoscaling")
    assert "replicas" not in rendered.workload["spec"]
    target = rendered.one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (rendered.workload["kind"], rendered.workload["metadata"]["name"])


def test_a_network_rule_never_has_an_empty_list_of_peers(rendered: Rendered) -> None:
    """Kubernetes reads that as everybody."""
    spec = rendered.one("NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    rules = [rule["from"] for rule in spec["ingress"]] + [rule["to"] for rule in spec["egress"]]
    assert all(rules)
    assert all(peer for peers in rules for peer in peers)


def test_egress_is_limited_to_redis_the_collector_and_dns() -> None:
    assert Rendered.variant("default").one("NetworkPolicy")["spec"]["egress"] == []
    redis = Rendered.variant("redis").one("NetworkPolicy")["spec"]["egress"]
    assert [[port["port"] for port in rule["ports"]] for rule in redis] == [[53, 53], [6379]]
    policy = {"otlp": [{"podSelector": {"matchLabels": {"app": "collector"}}}]}
    otlp = Rendered.variant("default", networkPolicy=policy).one("NetworkPolicy")["spec"]["egress"]
    assert [[port["port"] for port in rule["ports"]] for rule in otlp] == [[53, 53], [4318]]


def test_the_certificate_of_cert_manager_is_one_that_the_server_takes() -> None:
    spec = Rendered.variant("cert-manager").one("Certificate")["spec"]
    assert (spec["privateKey"]["algorithm"], spec["privateKey"]["size"]) == ("ECDSA", 256)
    assert spec["usages"] == ["digital signature", "server auth"]
    assert spec["dnsNames"] == ["livekit-auth.media.svc", "livekit-auth.media.svc.cluster.local"]
    mounted = [source["secret"]["name"] for source in sources("cert-manager") if items(source)[0]["key"] == "tls.key"]
    assert mounted == [spec["secretName"]]


def sources(variant: str) -> list[dict[str, Any]]:
    (volume,) = [volume for volume in Rendered.variant(variant).pod["volumes"] if "projected" in volume]
    return [source for source in volume["projected"]["sources"] if "secret" in source]


def test_spires_socket_is_mounted_and_no_key_is() -> None:
    rendered = Rendered.variant("spire")
    assert {"name": "workload-api", "csi": {"driver": "csi.spiffe.io", "readOnly": True}} in rendered.pod["volumes"]
    assert [source["secret"]["name"] for source in sources("spire")] == ["livekit-keys"]
    assert rendered.settings["tls"] == {"workload_api": True}
    assert rendered.settings["identity"]["workload_api"] == ["example.org"]
    assert rendered.settings["workload_api"] == {"socket": "unix:///spiffe-workload-api/spire-agent.sock"}


def test_settings_restart_the_pods_and_a_policy_or_deny_list_does_not() -> None:
    def checksum(**values: object) -> str:
        metadata = Rendered.variant("default", **values).workload["spec"]["template"]["metadata"]
        return metadata["annotations"]["checksum/settings"]

    before = checksum()
    assert checksum(settings={"webhooks": {"remember": 600}}) != before
    assert checksum(identity={"deny": [{"id": "spiffe://example.org/x"}]}) == before
    assert checksum(policy={"inline": {"version": 1, "callers": []}}) == before


def test_rules_for_prometheus_come_from_a_file(tmp_path: Any) -> None:
    groups = "groups: [{name: livekit-auth, rules: [{alert: Down, expr: 'up == 0'}]}]\n"
    (tmp_path / "alerts.yaml").write_text(groups)
    rules = f"metrics.prometheusRule.rules={tmp_path / 'alerts.yaml'}"
    rendered = Rendered.variant("default", "--set", "metrics.prometheusRule.enabled=true", "--set-file", rules)
    assert rendered.one("PrometheusRule")["spec"]["groups"][0]["rules"] == [{"alert": "Down", "expr": "up == 0"}]


def test_prometheus_calls_the_job_livekit_auth_whatever_the_release_is_called() -> None:
    rendered = Rendered.variant("redis")
    label = rendered.one("ServiceMonitor")["spec"]["jobLabel"]
    assert rendered.one("Service")["metadata"]["labels"][label] == "livekit-auth"


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no certificate": ({"tls": {"existingSecret": ""}}, "exactly one of existingSecret"),
    "two certificates": ({"tls": {"workloadApi": {"enabled": True}}}, "exactly one of existingSecret"),
    "no issuer": ({"tls": {"existingSecret": "", "certManager": {"enabled": True}}}, "name the issuer"),
    "no trusted CA": ({"identity": {"trustDomains": None}}, "no caller could be authenticated"),
    "no policy": ({"policy": {"inline": None}}, "exactly one of inline and configMap"),
    "two policies": ({"policy": {"configMap": "mine"}}, "exactly one of inline and configMap"),
    "no callers": ({"networkPolicy": {"callers": []}}, "no caller could connect"),
    "Redis out of reach": ({"redis": {"enabled": True, "url": "redis://r:6379"}}, "the server couldn't reach Redis"),
    "Redis without a url": ({"redis": {"enabled": True}}, "redis.url"),
    "no rules": ({"metrics": {"prometheusRule": {"enabled": True}}}, "--set-file"),
    "no projects": ({"projects": {"default": None}}, "projects"),
    "a misspelt value": ({"replica": 3}, "replica"),
    "two deny-lists": ({"identity": {"deny": [{"id": "x"}], "denyList": {"configMap": "d", "key": "k"}}}, "not both"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_values_is_refused_with_what_to_do(mistake: str) -> None:
    values, expected = MISTAKES[mistake]
    with pytest.raises(RefusedError, match=re.escape(expected)):
        Rendered.variant("default", **values)


SECRETS: dict[str, dict[str, Any]] = {
    "a private key": {"podAnnotations": {"x": "-----BEGIN EC PRIVATE KEY-----\nMARKER"}},
    "a key file": {"settings": {"keys": {"APIabcdefgh": "MARKER-0123456789abcdef"}}},
    "a key with its secret": {"settings": {"keys": [{"id": "APIabcdefgh", "secret": "MARKER"}]}},
    "a password in a url": {"redis": {"enabled": True, "url": "rediss://me:MARKER@redis:6379"}},
    "a password": {"settings": {"redis": {"password": "MARKER"}}},
    "a secret of LiveKit's": {"settings": {"LIVEKIT": {"api_secret": "MARKER"}}},
    "keys in a project": {"projects": {"default": {"keys": {"secret": "MARKER"}}}},
    "the first field of a list": {"settings": {"x": [{"Secret": "MARKER", "y": 1}]}},
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_in_the_values_is_refused_and_not_repeated(kind: str) -> None:
    with pytest.raises(RefusedError) as refused:
        Rendered.variant("default", **SECRETS[kind])
    assert "MARKER" not in str(refused.value)


def test_no_secret_is_rendered(rendered: Rendered) -> None:
    assert not rendered.all("Secret")
    assert "env" not in rendered.container


def test_helm_is_pinned() -> None:
    assert re.search(r"^require helm\.sh/helm/v4 v4\.\d+\.\d+$", (MODULE / "go.mod").read_text(), re.MULTILINE)
