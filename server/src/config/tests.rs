//! Configurations as users write them, good and bad.

use std::path::{Path, PathBuf};
use std::time::Duration;

use avouch_attestors::node::x509pop::Trust;

use super::*;

const SERVER: &str = "trust_domain = \"example.org\"\n data_dir = \"/tmp/d\"\n";
const PLUGINS: &str = r#"
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3"  connection_string = "/tmp/d/db.sqlite3" } }
  KeyManager "memory" { plugin_data {} }
  NodeAttestor "join_token" { plugin_data {} }
}
"#;

fn parse_with(server: &str, rest: &str, args: &[&str]) -> Result<ServerConfig, ConfigError> {
    let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
    let flags = Flags::parse("run", &args)?;
    read(&format!("server {{\n{SERVER}\n{server}\n}}\n{rest}"), Path::new("F"), &flags)
}

fn parse(server: &str) -> Result<ServerConfig, ConfigError> {
    parse_with(server, PLUGINS, &[])
}

fn error(server: &str) -> String {
    parse(server).unwrap_err().to_string()
}

fn error_of(rest: &str) -> String {
    parse_with("", rest, &[]).unwrap_err().to_string()
}

#[test]
fn a_provider_is_named_whole_and_only_beside_pages() {
    let with = |more: &str| parse(&format!("console_address = \"127.0.0.1:8090\"\n{more}"));
    let issuer = "console_issuer = \"https://idp.example.org/a\"\n";
    let client = "console_client_id = \"avouch\"\n";
    assert_eq!(with("").unwrap().console_sign_in, None);
    let whole = with(&format!("{issuer}{client}console_url = \"http://localhost:8090/\"")).unwrap();
    let whole = whole.console_sign_in.unwrap();
    assert_eq!((whole.issuer.as_str(), whole.client_id.as_str()), ("https://idp.example.org/a", "avouch"));
    assert_eq!((whole.host.as_deref(), whole.secret_file), (Some("localhost:8090"), None));
    let why = |more: &str| with(more).unwrap_err().to_string();
    assert!(why(issuer).contains("console_client_id"), "{}", why(issuer));
    assert!(why(client).contains("expected console_issuer beside it"));
    assert!(
        why(&format!("{client}console_issuer = \"http://idp.example.org\""))
            .contains("expected https://HOST")
    );
    assert!(why(&format!("{issuer}console_client_id = \"a b\"")).contains("visible ASCII"));
    for url in
        ["http://localhost:8091", "https://localhost:8090", "http://pages.example.org:8090", "localhost:8090"]
    {
        let refused = why(&format!("{issuer}{client}console_url = \"{url}\""));
        assert!(refused.contains("expected http://localhost:8090"), "{refused}");
    }
    let nowhere = parse(&format!("{issuer}{client}")).unwrap_err().to_string();
    assert!(nowhere.contains("expected console_address beside it"), "{nowhere}");
}

#[test]
fn pages_are_on_loopback_or_nowhere() {
    let at = |address: &str| {
        parse(&format!("console_address = \"{address}\"")).map(|config| config.console_address)
    };
    assert_eq!(at("").unwrap(), None);
    for good in ["127.0.0.1:8090", "[::1]:0"] {
        assert_eq!(at(good).unwrap().unwrap().to_string(), good);
    }
    for wrong in [
        "0.0.0.0:8090",
        "127.0.0.2:8090",
        "192.0.2.1:8090",
        "[::ffff:127.0.0.1]:8090",
        "localhost:8090",
        "8090",
    ] {
        assert!(
            at(wrong).unwrap_err().to_string().contains("expected 127.0.0.1 or [::1] and a port"),
            "{wrong}"
        );
    }
}

#[test]
fn owners_are_demanded_from_a_day_or_a_moment_or_never() {
    let from = |text: &str| {
        parse(&format!("owners_demanded_from = \"{text}\"")).map(|config| config.owners_demanded_from)
    };
    let (day, hour) = (1_798_675_200, 3_600);
    assert_eq!((parse("").unwrap().owners_demanded_from, from("").unwrap()), (None, None));
    for (text, seconds) in [
        ("2026-12-31", day),
        ("2026-12-31T08:00:00Z", day + 8 * hour),
        ("2026-12-31T08:00:00+01:00", day + 7 * hour),
    ] {
        assert_eq!(from(text).unwrap(), Some(Timestamp::from_secs(seconds)), "{text}");
    }
    for wrong in ["soon", "2026-13-01", "31.12.2026", "2026-12-31T08:00", "1798675200", "30d"] {
        assert!(from(wrong).unwrap_err().to_string().contains("expected a day or a moment"), "{wrong}");
    }
}

#[test]
fn a_short_file_gives_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.bind.to_string(), "0.0.0.0:8081");
    assert_eq!(config.socket_path, PathBuf::from("/tmp/spire-server/private/api.sock"));
    assert_eq!(config.default_x509_svid_ttl, Duration::from_secs(3600));
    assert_eq!(config.agent_ttl, Duration::from_secs(3600));
    assert_eq!(config.default_jwt_svid_ttl, Duration::from_secs(300));
    assert_eq!(config.ca_ttl, Duration::from_secs(24 * 3600));
    assert_eq!((config.ca_key_type, config.jwt_key_type), (KeyType::EcP256, KeyType::EcP256));
    assert_eq!(config.ca_subject.organization, ["SPIFFE"]);
    assert_eq!(config.rate_limit, RateLimit { attestation: true, signing: true });
    assert_eq!(config.datastore.file, PathBuf::from("/tmp/d/db.sqlite3"));
    assert_eq!(config.key_manager, KeyManagerConfig::Memory);
    assert_eq!(config.node_attestors, [NodeAttestorConfig::JoinToken]);
    assert!(config.health.is_none() && config.warnings.is_empty());
}

#[test]
fn the_json_of_the_helm_chart_is_read() {
    let json = r#"{
      "health_checks": {"bind_address": "0.0.0.0", "bind_port": "8080", "listener_enabled": true},
      "plugins": {
        "DataStore": [{"sql": {"plugin_data": {"connection_string": "/run/spire/data/datastore.sqlite3", "database_type": "sqlite3"}}}],
        "KeyManager": [{"disk": {"plugin_data": {"keys_path": "/run/spire/data/keys.json"}}}],
        "NodeAttestor": [{"join_token": {"plugin_data": {}}}]
      },
      "server": {
        "trust_domain": "example.org", "data_dir": "/run/spire/data", "bind_port": "8081",
        "ca_key_type": "rsa-2048", "ca_subject": [{"common_name": "example.org", "country": ["NL"], "organization": ["Example"]}],
        "default_x509_svid_ttl": "4h", "default_jwt_svid_ttl": "1h", "jwt_issuer": "https://oidc.example.org",
        "log_level": "info", "audit_log_enabled": false
      },
      "telemetry": [{"Prometheus": [{"host": "0.0.0.0", "port": 9988}]}]
    }"#;
    let config = read(json, Path::new("F"), &Flags::default()).unwrap();
    assert_eq!((config.ca_key_type, config.jwt_key_type), (KeyType::Rsa2048, KeyType::Rsa2048));
    assert_eq!(config.ca_subject.country, ["NL"]);
    assert_eq!(config.health.unwrap().port, 8080);
    assert_eq!(config.telemetry.prometheus, Some(("0.0.0.0".into(), 9988)));
    assert_eq!(config.key_manager, KeyManagerConfig::Disk { keys_path: "/run/spire/data/keys.json".into() });
}

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let args = ["-serverPort", "9", "-trustDomain=td", "--logLevel", "debug", "-socketPath", "/s"];
    let config = parse_with("bind_port = 8\nlog_format = \"json\"", PLUGINS, &args).unwrap();
    assert_eq!(config.bind.port(), 9);
    assert_eq!(config.trust_domain.as_str(), "td");
    assert_eq!(config.log.level, logs::Level::Debug);
    assert_eq!(config.log.format, logs::Format::Json);
    assert_eq!(config.socket_path, PathBuf::from("/s"));
    assert_eq!(parse("bind_port = \"0x1F91\"").unwrap().bind.port(), 8081);
}

#[test]
fn an_unknown_key_is_an_error_that_offers_the_nearest() {
    let text = error("trust_domian = \"x\"");
    assert!(text.starts_with("unknown configuration detected"), "{text}");
    assert!(text.contains("trust_domain"), "{text}");
}

#[test]
fn a_key_that_is_not_built_yet_says_so() {
    let text = error("federation { bundle_endpoint { port = 8443 } }");
    assert!(text.starts_with("not supported yet: "), "{text}");
    assert!(text.contains("federation"), "{text}");
    assert!(parse("federation {}\nexperimental { feature_flags = [] }").is_ok(), "these ask for nothing");
}

#[test]
fn bad_values_name_their_key() {
    for (server, part) in [
        ("bind_address = \"here\"", "bind_address"),
        ("bind_port = 70000", "bind_port"),
        ("admin_ids = [\"spiffe://Example.org/a\"]", "admin_ids"),
        ("log_level = \"loud\"", "log_level"),
        ("log_format = \"xml\"", "log_format"),
        ("prune_attested_nodes_batch_size = 0", "prune_attested_nodes_batch_size"),
        ("ca_ttl = \"1d\"", "1d"),
        ("ca_ttl = \"-1h\"", "is negative"),
        ("max_attested_node_info_staleness = \"soon\"", "max_attested_node_info_staleness"),
        ("experimental { cache_reload_interval = \"soon\" }", "cache_reload_interval"),
        (
            "ca_key_type = \"ec-p521\"",
            "key type \"ec-p521\" is unknown; must be one of [rsa-2048, rsa-4096, ec-p256, ec-p384]",
        ),
    ] {
        let text = error(server);
        assert!(text.contains(part), "{server}: {text}");
    }
}

#[test]
fn what_has_no_default_is_required() {
    let read = |text: &str| read(text, Path::new("F"), &Flags::default()).unwrap_err().to_string();
    assert_eq!(
        read("server { trust_domain = \"td\" data_dir = \"/d\" }"),
        "plugins section must be configured"
    );
    assert_eq!(read(PLUGINS), "server section must be configured");
    assert_eq!(
        read(&format!("server {{ data_dir = \"/d\" }}\n{PLUGINS}")),
        "trust_domain must be configured"
    );
    assert_eq!(read(&format!("server {{ trust_domain = \"t\" }}\n{PLUGINS}")), "data_dir must be configured");
}

#[test]
fn the_trust_domain_may_be_written_as_an_id() {
    let read = |name: &str| {
        let text = format!("server {{ trust_domain = \"{name}\"\n data_dir = \"/d\" }}\n{PLUGINS}");
        read(&text, Path::new("F"), &Flags::default()).map(|c| c.trust_domain.to_string())
    };
    assert_eq!(read("spiffe://example.org").unwrap(), "example.org");
    assert!(read("spiffe://Example.org").unwrap_err().to_string().contains("trust_domain"));
}

#[test]
fn plugins_are_counted_and_known() {
    let sql =
        "DataStore \"sql\" { plugin_data { database_type = \"sqlite3\"\n connection_string = \"x\" } }\n";
    let with = |rest: &str| error_of(&format!("plugins {{\n{sql}{rest}\n}}"));
    assert!(with("").contains("KeyManager: constraint not satisfied: expected exactly 1 but got 0"));
    let two = with("KeyManager \"memory\" {}\nKeyManager \"disk\" { plugin_data { keys_path = \"k\" } }");
    assert!(two.contains("expected exactly 1 but got 2"), "{two}");
    assert_eq!(
        with("KeyManager \"x\" {}"),
        "failed to load plugin \"x\": no built-in plugin \"x\" for type \"KeyManager\""
    );
    assert_eq!(with("KeyManager \"aws_kms\" {}"), "not supported yet: plugins.KeyManager \"aws_kms\"");
    assert!(with("KeyManager \"disk\" {}").contains("keys_path"));
    let postgres = sql.replace("sqlite3", "postgres");
    let text = error_of(&format!("plugins {{\n{postgres}KeyManager \"memory\" {{}}\n}}"));
    assert!(text.starts_with("not supported yet: ") && text.contains("postgres"), "{text}");
    let aws = sql.replace("database_type = \"sqlite3\"", "database_type \"aws_mysql\" { region = \"r\" }");
    let text = error_of(&format!("plugins {{\n{aws}KeyManager \"memory\" {{}}\n}}"));
    assert_eq!(text, "not supported yet: DataStore.sql.plugin_data.database_type \"aws_mysql\"");
}

#[test]
fn x509pop_takes_all_keys_that_spire_knows() {
    let with = |data: &str| {
        let rest = PLUGINS.replace(
            "NodeAttestor \"join_token\" { plugin_data {} }",
            &format!("NodeAttestor \"x509pop\" {{ plugin_data {{ {data} }} }}"),
        );
        parse_with("", &rest, &[]).map(|c| c.node_attestors)
    };
    let of = |data: &str| match with(data).unwrap().remove(0) {
        NodeAttestorConfig::X509pop(config) => config,
        other => panic!("{other:?}"),
    };
    let short = of("ca_bundle_path = \"a\"");
    assert_eq!(short.trust, Trust::Files(vec!["a".into()]));
    assert_eq!((short.max_intermediates, short.max_rsa_key_size, short.verify_client_ip), (4, 8192, false));
    let full = "mode = \"external_pki\"\n ca_bundle_paths = [\"a\", \"b\"]\n max_intermediates = \"2\"
        max_rsa_key_size = 4096\n verify_client_ip = true
        agent_path_template = \"/{{ .PluginName }}/{{.Fingerprint}}\"";
    let full = of(full);
    assert_eq!(full.trust, Trust::Files(vec!["a".into(), "b".into()]));
    assert_eq!((full.max_intermediates, full.max_rsa_key_size, full.verify_client_ip), (2, 4096, true));
    assert_eq!(full.template, short.template, "the default may be written out");
    let spiffe = of("mode = \"spiffe\"\n spiffe_prefix = \"/nodes/\"");
    assert_eq!(spiffe.trust, Trust::OwnBundle { prefix: "/nodes/".into() });
    for (bad, part) in [
        ("", "one of ca_bundle_path or ca_bundle_paths must be configured"),
        ("ca_bundle_path = \"a\"\n ca_bundle_paths = [\"b\"]", "not both"),
        ("mode = \"spiffe\"\n ca_bundle_path = \"a\"", "in spiffe mode"),
        ("mode = \"spiffe\"\n spiffe_prefix = \"nodes\"", "spiffe_prefix"),
        ("mode = \"other\"", "got \"other\""),
        ("ca_bundle_path = \"a\"\n max_intermediates = -1", "max_intermediates is -1"),
        ("ca_bundle_path = \"a\"\n agent_path_template = \"/{{ .Nope }}\"", "there is no field .Nope"),
        ("ca_bundle_path = \"a\"\n agent_path_template = \"/{{ .SVIDPathTrimmed }}\"", "mode spiffe only"),
        ("ca_bundle_path = \"a\"\n ca_bundel_paths = [\"b\"]", "ca_bundle_paths"),
    ] {
        let text = with(bad).unwrap_err().to_string();
        assert!(text.contains(part), "{bad}: {text}");
    }
}

#[test]
fn an_empty_ca_subject_gets_the_default_and_a_warning() {
    let config = parse("ca_subject {}").unwrap();
    assert_eq!((config.ca_subject.country.as_slice(), config.warnings.len()), (&["US".to_owned()][..], 1));
}

#[test]
fn the_list_of_keys_not_supported_yet_is_the_golden_one() {
    let golden = include_str!("../../../tests/golden/not_supported_server.txt");
    let list = table::not_supported_yet().join("\n") + "\n";
    assert_eq!(list, golden, "the list may only shrink; write it anew when a key is built");
    assert!(golden.lines().count() <= 55, "the list may only shrink");
}

#[test]
fn the_example_file_shows_every_key_and_is_valid() {
    let example = include_str!("../../../deploy/config/server.conf");
    assert_eq!(example, table::example_file(), "write deploy/config/server.conf anew");
    read(example, Path::new("server.conf"), &Flags::default()).unwrap();
}

#[test]
fn an_empty_or_zero_lifetime_means_the_default() {
    for value in ["\"\"", "\"0\"", "\"0s\""] {
        let config = parse(&format!("ca_ttl = {value}\n default_x509_svid_ttl = {value}")).unwrap();
        assert_eq!(config.ca_ttl, Duration::from_secs(24 * 3600), "{value}");
        assert_eq!(config.default_x509_svid_ttl, Duration::from_secs(3600), "{value}");
    }
}
