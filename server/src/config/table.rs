//! Every key of the server's configuration: meaning, unit, default, built or not. The example file, the check for
//! unknown keys and the list of keys that are not supported yet all come from here.

use avouch::config::table::{KeySpec, Plugin, Table, example, not_yet_keys};

/// The whole file.
pub static FILE: Table = Table {
    name: "",
    keys: &[
        KeySpec::block("server", &SERVER, "The server itself.").live(),
        KeySpec::block("plugins", &PLUGINS, "What the server is assembled of.").live(),
        KeySpec::block("health_checks", &HEALTH_CHECKS, "HTTP listener for liveness and readiness probes."),
        KeySpec::block("telemetry", &TELEMETRY, "Metrics."),
    ],
};

static SERVER: Table = Table {
    name: "server",
    keys: &[
        KeySpec::text("bind_address", "\"0.0.0.0\"", "IP address of the API for agents and remote admins."),
        KeySpec::int("bind_port", "8081", "TCP port of that API. A number or the same in quotes."),
        KeySpec::text("socket_path", "\"/tmp/spire-server/private/api.sock\"", "Unix socket of the API for local admins; mode 0770, at most 107 bytes."),
        KeySpec::text("people_socket_path", "\"\"", "Unix socket for local users who are people (avouch init, avouch person); mode 0666, at most 107 bytes, serves nothing else; empty = none."),
        KeySpec::text("console_address", "\"\"", "Address and port of the pages for people (avouch console), on loopback, such as 127.0.0.1:8090; empty = none."),
        KeySpec::text("console_issuer", "\"\"", "URL of the OpenID Connect provider at which people sign in to the pages, as it writes it; empty = by links of avouch console."),
        KeySpec::text("console_client_id", "\"\"", "What the provider calls this server. Required with console_issuer. Register there: redirect URI http://CONSOLE_ADDRESS/signed-in, after logout http://CONSOLE_ADDRESS/."),
        KeySpec::text("console_client_secret_file", "\"\"", "File with the client's secret, one line, mode 0600; empty = a public client."),
        KeySpec::text("console_ca_file", "\"\"", "Roots of the provider's certificate (PEM); empty = those of this machine."),
        KeySpec::text("console_url", "\"\"", "The pages as the provider knows them, such as http://localhost:8090; empty = http://CONSOLE_ADDRESS."),
        KeySpec::text("people_file", "\"\"", "File with the people who are there, one a line: a local user's number or a person's ID; its last line is `end`. Who is not in it leaves when it changes, and at the start; empty = none."),
        KeySpec::text("owners_demanded_from", "\"\"", "Day or moment, such as 2026-12-31 or 2026-12-31T08:00:00Z, from which on entries whose SPIFFE ID no identity has are withheld (avouch found, avouch adopt); empty = never. To put it off, set a later one."),
        KeySpec::text("trust_domain", "\"example.org\"", "Name of the trust domain. Required; has no default.").live(),
        KeySpec::text("data_dir", "\"/var/lib/avouch/server\"", "Directory for what the server keeps; made if missing, used by one server only. Required; has no default.").live(),
        KeySpec::texts("admin_ids", "[]", "SPIFFE IDs that may use the admin API with their X509-SVID, also from foreign trust domains."),
        KeySpec::duration("agent_ttl", "", "Lifetime of agents' SVIDs. Default: default_x509_svid_ttl.").unit("Go duration"),
        KeySpec::duration("default_x509_svid_ttl", "\"1h\"", "Lifetime of X509-SVIDs whose entry names none.").unit("Go duration"),
        KeySpec::duration("default_jwt_svid_ttl", "\"5m\"", "Lifetime of JWT-SVIDs whose entry names none.").unit("Go duration"),
        KeySpec::duration("ca_ttl", "\"24h\"", "Lifetime of the signing authorities. SVIDs longer than a sixth of it are cut short at times.").unit("Go duration"),
        KeySpec::text("ca_key_type", "\"ec-p256\"", "Key of the X.509 authority: ec-p256, ec-p384, rsa-2048 or rsa-4096."),
        KeySpec::text("jwt_key_type", "", "Key of the JWT authority, as ca_key_type. Default: ca_key_type."),
        KeySpec::block("ca_subject", &CA_SUBJECT, "Subject of the X.509 authority's certificate."),
        KeySpec::text("jwt_issuer", "\"\"", "Claim iss of JWT-SVIDs; empty = none."),
        KeySpec::bool("disable_jwt_svids", "false", "Issues no JWT-SVIDs."),
        KeySpec::bool("audit_log_enabled", "false", "Writes one log line for each API call or item of a batch."),
        KeySpec::text("log_level", "\"INFO\"", "ERROR, WARN, INFO, DEBUG or TRACE. The logger API changes it at run time."),
        KeySpec::text("log_format", "\"\"", "text or json; empty = text with whole seconds."),
        KeySpec::text("log_file", "\"\"", "File to append to, opened anew on SIGUSR2; empty = standard output."),
        KeySpec::bool("log_source_location", "false", "Adds file and line to each log line."),
        KeySpec::block("ratelimit", &RATELIMIT, "Limits per client address."),
        KeySpec::duration("prune_attested_nodes_expired_for", "", "Forgets nodes that ended this long ago; unset = never. Banned nodes stay.").unit("Go duration"),
        KeySpec::bool("prune_tofu_nodes", "false", "Forgets also nodes that can't attest again."),
        KeySpec::int("prune_attested_nodes_batch_size", "1000", "Nodes forgotten in one write."),
        KeySpec::texts("proxy_protocol_trusted_cidrs", "[]", "Load balancers whose PROXY header is believed.").not_yet(),
        KeySpec::duration("max_attested_node_info_staleness", "\"0s\"", "Accepted without effect: what the server knows of nodes is never stale.").unit("Go duration"),
        KeySpec::bool("profiling_enabled", "false", "Profiling endpoint.").not_yet(),
        KeySpec::int("profiling_port", "0", "Port of the profiling endpoint.").not_yet(),
        KeySpec::int("profiling_freq", "0", "Time between profile dumps.").not_yet(),
        KeySpec::texts("profiling_names", "[]", "Profiles to dump.").not_yet(),
        KeySpec::any("federation", "Bundle endpoint and relationships with other trust domains.").not_yet(),
        KeySpec::block("experimental", &EXPERIMENTAL, "Settings that may change."),
    ],
};

static CA_SUBJECT: Table = Table {
    name: "ca_subject",
    keys: &[
        KeySpec::texts("country", "[\"US\"]", "Countries."),
        KeySpec::texts("organization", "[\"SPIFFE\"]", "Organizations."),
        KeySpec::text("common_name", "\"\"", "Common name."),
    ],
};

static RATELIMIT: Table = Table {
    name: "ratelimit",
    keys: &[
        KeySpec::bool("attestation", "true", "One attestation per second and address."),
        KeySpec::bool("signing", "true", "500 signatures per second and address."),
    ],
};

static EXPERIMENTAL: Table = Table {
    name: "experimental",
    keys: &[
        KeySpec::bool("agent_spiffe_id_as_selector", "false", "Gives each agent the selector spiffe_id:ID."),
        KeySpec::duration(
            "cache_reload_interval",
            "\"5s\"",
            "Accepted without effect: nothing is reloaded, changes arrive at once.",
        )
        .unit("Go duration"),
        KeySpec::duration(
            "full_cache_reload_interval",
            "\"24h\"",
            "Accepted without effect: nothing is reloaded.",
        )
        .unit("Go duration"),
        KeySpec::bool(
            "events_based_cache",
            "false",
            "Accepted without effect: the cache always follows the change log.",
        ),
        KeySpec::duration(
            "prune_events_older_than",
            "\"12h\"",
            "Accepted without effect: the change log is pruned by count.",
        )
        .unit("Go duration"),
        KeySpec::duration(
            "event_timeout",
            "\"15m\"",
            "Accepted without effect: the change log has no gaps to wait for.",
        )
        .unit("Go duration"),
        KeySpec::duration(
            "sql_transaction_timeout",
            "\"15m\"",
            "Accepted without effect: older name of event_timeout.",
        )
        .unit("Go duration"),
        KeySpec::any("auth_opa_policy_engine", "Authorization by OPA policy.").not_yet(),
        KeySpec::bool("require_pq_kem", "false", "Refuses connections without post-quantum key exchange.")
            .not_yet(),
        KeySpec::text("wit_key_type", "\"\"", "Key of the WIT authority.").not_yet(),
        KeySpec::text("wit_issuer", "\"\"", "Claim iss of WIT-SVIDs.").not_yet(),
        KeySpec::texts("feature_flags", "[]", "Feature flags; there are none.").not_yet(),
    ],
};

static PLUGINS: Table = Table {
    name: "plugins",
    keys: &[
        KeySpec::labelled("DataStore", &PLUGIN, "Where entries, nodes and bundles are kept. Exactly one.")
            .plugins(&[Plugin { name: "sql", data: Some(&DATASTORE_SQL), live: true }]),
        KeySpec::labelled(
            "KeyManager",
            &PLUGIN,
            "Where signing keys are kept. Exactly one; with memory, each start has new keys.",
        )
        .plugins(&[
            Plugin { name: "disk", data: Some(&KEYS_DISK), live: true },
            Plugin { name: "memory", data: None, live: false },
        ]),
        KeySpec::labelled("NodeAttestor", &PLUGIN, "How agents prove their node. Any number.").plugins(&[
            Plugin { name: "join_token", data: None, live: true },
            Plugin { name: "x509pop", data: Some(&X509POP), live: false },
        ]),
        KeySpec::labelled("UpstreamAuthority", &PLUGIN, "An authority above ours.").not_yet(),
        KeySpec::labelled("Notifier", &PLUGIN, "Who is told of bundle changes.").not_yet(),
        KeySpec::labelled("BundlePublisher", &PLUGIN, "Where the bundle is published.").not_yet(),
        KeySpec::labelled("CredentialComposer", &PLUGIN, "What changes credentials before they are signed.")
            .not_yet(),
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

/// Settings of DataStore "sql".
pub static DATASTORE_SQL: Table = Table {
    name: "DataStore.sql.plugin_data",
    keys: &[
        KeySpec::text("database_type", "\"sqlite3\"", "sqlite3.").live(),
        KeySpec::text(
            "connection_string",
            "\"/var/lib/avouch/server/datastore.sqlite3\"",
            "File of the database.",
        )
        .live(),
        KeySpec::bool("disable_migration", "false", "Refuses to start instead of migrating.").not_yet(),
        KeySpec::text("ro_connection_string", "\"\"", "Read-only database.").not_yet(),
        KeySpec::text("root_ca_path", "\"\"", "Roots of the database's certificate.").not_yet(),
        KeySpec::text("client_cert_path", "\"\"", "Certificate shown to the database.").not_yet(),
        KeySpec::text("client_key_path", "\"\"", "Its key.").not_yet(),
        KeySpec::int("max_open_conns", "100", "Accepted without effect: one file needs one connection."),
        KeySpec::int("max_idle_conns", "100", "Accepted without effect: one file needs one connection."),
        KeySpec::text("conn_max_lifetime", "\"\"", "Accepted without effect: one file needs one connection."),
        KeySpec::bool("log_sql", "false", "Accepted without effect: statements are not logged."),
    ],
};

/// Settings of KeyManager "disk".
pub static KEYS_DISK: Table = Table {
    name: "KeyManager.disk.plugin_data",
    keys: &[KeySpec::text(
        "keys_path",
        "\"/var/lib/avouch/server/keys.json\"",
        "File of the signing keys; mode 0600, for one server. Required.",
    )
    .live()],
};

/// Settings of plugins that have none.
pub static NOTHING: Table = Table { name: "plugin_data", keys: &[] };

/// Settings of NodeAttestor "x509pop".
pub static X509POP: Table = Table {
    name: "NodeAttestor.x509pop.plugin_data",
    keys: &[
        KeySpec::text("mode", "\"external_pki\"", "external_pki: foreign certificates; spiffe: X509-SVIDs of the own trust domain."),
        KeySpec::text(
            "ca_bundle_path",
            "\"/etc/avouch/node-ca.pem\"",
            "Roots of the nodes' certificates (PEM). Mode external_pki wants one of ca_bundle_path and ca_bundle_paths.",
        )
        .live(),
        KeySpec::texts("ca_bundle_paths", "[]", "The same, several files."),
        KeySpec::int("max_intermediates", "4", "Most intermediate certificates in a proof."),
        KeySpec::int("max_rsa_key_size", "8192", "Largest RSA key in a proof.").unit("bits"),
        KeySpec::bool("verify_client_ip", "false", "The agent's address must be in its certificate."),
        KeySpec::text(
            "agent_path_template",
            "\"/{{.PluginName}}/{{.Fingerprint}}\"",
            "Path of the agents' IDs below /spire/agent. Default in mode spiffe: /{{.PluginName}}/{{.SVIDPathTrimmed}}.",
        ),
        KeySpec::text(
            "spiffe_prefix",
            "\"/spire-exchange/\"",
            "Path prefix of the X509-SVIDs that prove a node. Mode spiffe only.",
        ),
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
        KeySpec::text("MetricPrefix", "\"spire_server\"", "First word of every metric name."),
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
        KeySpec::int("port", "9988", "Port of the page. Required."),
        KeySpec::any("tls", "Certificate of the page.").not_yet(),
    ],
};

/// Plugins that SPIRE ships and we have not built.
pub const PLUGINS_NOT_YET: &[(&str, &[&str])] = &[
    ("KeyManager", &["aws_kms", "azure_key_vault", "gcp_kms", "hashicorp_vault"]),
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
];

/// Everything that SPIRE's configuration knows and ours refuses with "not supported yet", sorted. The list may only
/// shrink.
#[must_use]
pub fn not_supported_yet() -> Vec<String> {
    let tables = [(&FILE, ""), (&DATASTORE_SQL, DATASTORE_SQL.name), (&X509POP, X509POP.name)];
    let mut list: Vec<String> = tables
        .into_iter()
        .flat_map(|(table, prefix)| {
            let dot = if prefix.is_empty() { "" } else { "." };
            not_yet_keys(table).into_iter().map(move |key| format!("{prefix}{dot}{key}"))
        })
        .chain(
            PLUGINS_NOT_YET
                .iter()
                .flat_map(|(kind, names)| names.iter().map(move |name| format!("plugins.{kind} \"{name}\""))),
        )
        .chain(
            ["mysql", "postgres"].map(|kind| format!("DataStore.sql.plugin_data.database_type = \"{kind}\"")),
        )
        .collect();
    list.sort();
    list
}

/// The whole example file, `deploy/config/server.conf`.
#[must_use]
pub fn example_file() -> String {
    example(&FILE)
}
