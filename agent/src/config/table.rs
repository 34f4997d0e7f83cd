//! Every key of the agent's configuration: meaning, unit, default, built or not. The example file, the check for
//! unknown keys and the list of keys that are not supported yet all come from here.

use avouch::config::table::{KeySpec, Plugin, Table, not_yet_keys};

/// The whole file.
pub static FILE: Table = Table {
    name: "",
    keys: &[
        KeySpec::block("agent", &AGENT, "The agent itself.").live(),
        KeySpec::block("plugins", &PLUGINS, "What the agent is assembled of.").live(),
        KeySpec::block("health_checks", &HEALTH_CHECKS, "HTTP listener for liveness and readiness probes."),
        KeySpec::block("telemetry", &TELEMETRY, "Metrics."),
    ],
};

#[rustfmt::skip] // one key, one line
static AGENT: Table = Table {
    name: "agent",
    keys: &[
        KeySpec::text("server_address", "\"127.0.0.1\"", "Name or address of the server. Every address of a name is tried. Required; has no default.").live(),
        KeySpec::int("server_port", "8081", "TCP port of the server. Required; has no default.").live(),
        KeySpec::text("trust_domain", "\"example.org\"", "Name of the trust domain. Required; has no default.").live(),
        KeySpec::text("data_dir", "\"/var/lib/avouch/agent\"", "Directory for what the agent keeps; made if missing. Default: the working directory.").live(),
        KeySpec::text("socket_path", "\"/tmp/spire-agent/public/api.sock\"", "Unix socket of the Workload API; mode 0777 in a directory of mode 0755, at most 107 bytes."),
        KeySpec::text("admin_socket_path", "\"\"", "Unix socket for local admins; mode 0770, not in or below the directory of socket_path; empty = none."),
        KeySpec::text("trust_bundle_path", "\"/etc/avouch/bundle.pem\"", "File with the server's authorities for the first contact. Exactly one of trust_bundle_path, trust_bundle_url and insecure_bootstrap is required.").live(),
        KeySpec::text("trust_bundle_url", "\"\"", "The same by https; the server's name is checked with the system's authorities, or those that SSL_CERT_FILE and SSL_CERT_DIR name."),
        KeySpec::text("trust_bundle_unix_socket", "\"\"", "Unix socket over which trust_bundle_url, then with http, is fetched; empty = over the network."),
        KeySpec::text("trust_bundle_format", "\"pem\"", "Of the file or document: pem (certificates) or spiffe (bundle document)."),
        KeySpec::bool("insecure_bootstrap", "false", "Trusts whatever server answers first. Never in production."),
        KeySpec::text("trust_bundle_spiffe_workload_api", "\"\"", "Workload API that hands out the bundle for the first contact.").not_yet(),
        KeySpec::bool("retry_bootstrap", "true", "Accepted without effect: the agent tries until it succeeds."),
        KeySpec::text("rebootstrap_mode", "\"never\"", "What to do when the server's authorities are unknown; only never is built."),
        KeySpec::duration("rebootstrap_delay", "", "Wait before the trust bundle is read anew.").not_yet(),
        KeySpec::text("join_token", "\"\"", "One-time proof of the node. Better in join_token_file: arguments and files are read by others."),
        KeySpec::text("join_token_file", "\"\"", "File with the join token. Only one of the two."),
        KeySpec::text("log_level", "\"INFO\"", "ERROR, WARN, INFO, DEBUG or TRACE. The logger API changes it at run time."),
        KeySpec::text("log_format", "\"\"", "text or json; empty = text with whole seconds."),
        KeySpec::text("log_file", "\"\"", "File to append to, opened anew on SIGUSR2; empty = standard output."),
        KeySpec::bool("log_source_location", "false", "Adds file and line to each log line."),
        KeySpec::texts("log_selectors", "[]", "Beginnings of the selectors that are shown when a workload is refused; empty = all are."),
        KeySpec::text("workload_x509_svid_key_type", "\"ec-p256\"", "Key of the workloads' X509-SVIDs: ec-p256, ec-p384 or rsa-2048."),
        KeySpec::duration("availability_target", "\"0s\"", "Renews SVIDs early enough to outlive an outage of this length; at least 24h; 0s = renews at half of their life.").unit("Go duration"),
        KeySpec::int("x509_svid_cache_max_size", "1000", "X509-SVIDs kept for entries that nobody asks for now."),
        KeySpec::int("jwt_svid_cache_max_size", "1000", "JWT-SVIDs kept."),
        KeySpec::bool("allow_unauthenticated_verifiers", "false", "Gives the bundle of the trust domain to processes without an identity too."),
        KeySpec::texts("allowed_foreign_jwt_claims", "[]", "Claims that a validated token of another trust domain shows besides sub, aud and exp."),
        KeySpec::texts("authorized_delegates", "[]", "SPIFFE IDs that may use the delegated identity API.").not_yet(),
        KeySpec::bool("disable_workload_api", "false", "Turns the Workload API off.").not_yet(),
        KeySpec::bool("disable_sds_api", "false", "Accepted without effect: Envoy's SDS is not built, so it is off."),
        KeySpec::any("sds", "Names of resources in Envoy's SDS.").not_yet(),
        KeySpec::bool("profiling_enabled", "false", "Profiling endpoint.").not_yet(),
        KeySpec::int("profiling_port", "0", "Port of the profiling endpoint.").not_yet(),
        KeySpec::int("profiling_freq", "0", "Time between profile dumps.").not_yet(),
        KeySpec::texts("profiling_names", "[]", "Profiles to dump.").not_yet(),
        KeySpec::block("experimental", &EXPERIMENTAL, "Settings that may change."),
    ],
};

#[rustfmt::skip]
static EXPERIMENTAL: Table = Table {
    name: "experimental",
    keys: &[
        KeySpec::duration("no_identity_hold", "\"1s\"", "How long a process without an entry is held before it is refused, while the server pushes changes; 0s = not at all, as SPIRE; at most 1m.").unit("Go duration"),
        KeySpec::duration("sync_interval", "\"5s\"", "Time between two syncs with a server that does not push.").unit("Go duration"),
        KeySpec::bool("use_sync_authorized_entries", "true", "Fetches only what changed from a server that does not push."),
        KeySpec::text("sealed_state_dir", "\"\"", "Folder of the sealed state, from which a restarted agent serves while the server is away. Empty = with KeyManager disk data_dir; with memory, where the agent's own key and SVID are kept there too, data_dir or else sealed in $RUNTIME_DIRECTORY. With memory it must be on tmpfs, written by nobody else, and not in or below the directory of socket_path, else nothing is kept; none = nothing is kept."),
        KeySpec::text("gate_secrets_dir", "\"\"", "Folder whose files, of the agent's own user and mode 0600, HTTP gates may add to what they let through, whoever runs the AI agent. Empty = only files of the user who runs it."),
        KeySpec::duration("jwt_svid_cache_hit_timeout", "", "Longest wait for the server before a cached JWT-SVID is used.").not_yet(),
        KeySpec::bool("require_pq_kem", "false", "Refuses connections without post-quantum key exchange.").not_yet(),
        KeySpec::text("named_pipe_name", "\"\"", "Windows only.").not_yet(),
        KeySpec::text("admin_named_pipe_name", "\"\"", "Windows only.").not_yet(),
        KeySpec::any("ratelimit", "Calls per second and workload.").not_yet(),
        KeySpec::any("broker", "The broker endpoint.").not_yet(),
        KeySpec::texts("feature_flags", "[]", "Feature flags; there are none.").not_yet(),
    ],
};

static PLUGINS: Table = Table {
    name: "plugins",
    keys: &[
        KeySpec::labelled(
            "NodeAttestor",
            &PLUGIN,
            "How the node is proved: join_token or x509pop. Exactly one.",
        )
        .plugins(&[
            Plugin { name: "join_token", data: None, live: true },
            Plugin { name: "x509pop", data: Some(&X509POP), live: false },
        ])
        .live(),
        KeySpec::labelled(
            "KeyManager",
            &PLUGIN,
            "Where the agent's own key is kept: memory or disk. Exactly one.",
        )
        .plugins(&[
            Plugin { name: "disk", data: Some(&KEYS_DISK), live: true },
            Plugin { name: "memory", data: None, live: false },
        ])
        .live(),
        KeySpec::labelled("WorkloadAttestor", &PLUGIN, "What is learnt about processes: unix. At least one.")
            .plugins(&[Plugin { name: "unix", data: Some(&UNIX), live: true }])
            .live(),
        KeySpec::labelled("SVIDStore", &PLUGIN, "Where SVIDs are stored for others.").not_yet(),
    ],
};

static PLUGIN: Table = Table {
    name: "plugin",
    keys: &[
        KeySpec::any("plugin_data", "The plugin's own settings."),
        KeySpec::bool("enabled", "true", "False leaves the plugin out."),
        KeySpec::text("plugin_cmd", "\"\"", "Program of an external plugin.").not_yet(),
        KeySpec::texts("plugin_args", "[]", "Its arguments.").not_yet(),
        KeySpec::text("plugin_checksum", "\"\"", "SHA-256 of that program.").not_yet(),
        KeySpec::text("plugin_data_file", "\"\"", "File with the plugin's settings.").not_yet(),
    ],
};

/// Settings of plugins that have none.
pub static NOTHING: Table = Table { name: "plugin_data", keys: &[] };

/// Settings of NodeAttestor "x509pop".
#[rustfmt::skip]
pub static X509POP: Table = Table {
    name: "NodeAttestor.x509pop.plugin_data",
    keys: &[
        KeySpec::text("private_key_path", "\"/etc/avouch/node.key\"", "Key of the node (PEM). Required.").live(),
        KeySpec::text("certificate_path", "\"/etc/avouch/node.pem\"", "Certificate of the node (PEM), intermediates after it. Required.").live(),
        KeySpec::text("intermediates_path", "\"\"", "More intermediates (PEM)."),
        KeySpec::text("spiffe_endpoint_socket", "\"\"", "Workload API that gives key and certificate.").not_yet(),
    ],
};

/// Settings of KeyManager "disk".
#[rustfmt::skip]
pub static KEYS_DISK: Table = Table {
    name: "KeyManager.disk.plugin_data",
    keys: &[KeySpec::text("directory", "\"/var/lib/avouch/agent\"", "Directory of keys.json; mode 0600. Required.").live()],
};

/// Settings of WorkloadAttestor "unix".
#[rustfmt::skip]
pub static UNIX: Table = Table {
    name: "WorkloadAttestor.unix.plugin_data",
    keys: &[
        KeySpec::bool("discover_workload_path", "false", "Adds the selectors path and sha256 of the program."),
        KeySpec::int("workload_size_limit", "0", "Largest program that is hashed; 0 = any, below 0 = none is.").unit("bytes"),
    ],
};

static HEALTH_CHECKS: Table = Table {
    name: "health_checks",
    keys: &[
        KeySpec::bool("listener_enabled", "false", "Turns the listener on."),
        KeySpec::text("bind_address", "\"localhost\"", "Address of the listener."),
        KeySpec::int("bind_port", "80", "Port of the listener."),
        KeySpec::text("live_path", "\"/live\"", "Path of the liveness probe."),
        KeySpec::text("ready_path", "\"/ready\"", "Path of the readiness probe."),
    ],
};

static TELEMETRY: Table = Table {
    name: "telemetry",
    keys: &[
        KeySpec::block("Prometheus", &PROMETHEUS, "Page for a Prometheus scraper."),
        KeySpec::text("MetricPrefix", "\"spire_agent\"", "First word of every metric name."),
        KeySpec::bool("EnableTrustDomainLabel", "false", "Adds the label trust_domain."),
        KeySpec::bool("EnableHostnameLabel", "true", "Adds the label host."),
        KeySpec::any("InMem", "Metrics in memory.").not_yet(),
        KeySpec::any("DogStatsd", "Metrics to DogStatsD.").not_yet(),
        KeySpec::any("Statsd", "Metrics to StatsD.").not_yet(),
        KeySpec::any("M3", "Metrics to M3.").not_yet(),
        KeySpec::texts("AllowedPrefixes", "[]", "Only metrics with these prefixes.").not_yet(),
        KeySpec::texts("BlockedPrefixes", "[]", "No metrics with these prefixes.").not_yet(),
        KeySpec::texts("AllowedLabels", "[]", "Only these labels.").not_yet(),
        KeySpec::texts("BlockedLabels", "[]", "None of these labels.").not_yet(),
    ],
};

static PROMETHEUS: Table = Table {
    name: "Prometheus",
    keys: &[
        KeySpec::text("host", "\"localhost\"", "Address of the page."),
        KeySpec::int("port", "9989", "Port of the page. Required."),
        KeySpec::any("tls", "Certificate of the page.").not_yet(),
    ],
};

/// Plugins that SPIRE ships and we have not built.
pub const PLUGINS_NOT_YET: &[(&str, &[&str])] = &[
    (
        "NodeAttestor",
        &[
            "aws_iid",
            "azure_imds",
            "azure_msi",
            "gcp_iit",
            "http_challenge",
            "k8s_psat",
            "sshpop",
            "tpm_devid",
        ],
    ),
    ("WorkloadAttestor", &["docker", "k8s", "slurm", "systemd", "windows"]),
];

/// Everything that SPIRE's configuration knows and ours refuses with "not supported yet", sorted. The list may only
/// shrink.
#[must_use]
pub fn not_supported_yet() -> Vec<String> {
    let mut list: Vec<String> = not_yet_keys(&FILE);
    for table in [&X509POP, &KEYS_DISK, &UNIX] {
        list.extend(not_yet_keys(table).into_iter().map(|key| format!("plugins.{}.{key}", table.name)));
    }
    for (kind, names) in PLUGINS_NOT_YET {
        list.extend(names.iter().map(|name| format!("plugins.{kind} \"{name}\"")));
    }
    list.push("agent.rebootstrap_mode = \"always\"".into());
    list.push("agent.rebootstrap_mode = \"auto\"".into());
    list.sort();
    list
}
