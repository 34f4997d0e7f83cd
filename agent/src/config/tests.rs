//! The agent's configuration, one rule per test.

use super::*;

const PLUGINS: &str = r#"
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}
"#;

fn agent(extra: &str) -> String {
    format!(
        "agent {{\n server_address = \"s\"\n server_port = 8081\n trust_domain = \"example.org\"\n insecure_bootstrap = true\n{extra}\n}}\n{PLUGINS}"
    )
}

fn read_with(text: &str, args: &[&str]) -> Result<AgentConfig, String> {
    let args: Vec<_> = args.iter().map(|a| (*a).to_owned()).collect();
    let flags = Flags::parse(&args).map_err(|e| e.to_string())?;
    read(text, Path::new("agent.conf"), &flags).map_err(|e| e.to_string())
}

fn error(text: &str) -> String {
    read_with(text, &[]).expect_err("an error")
}

#[test]
fn the_least_configuration_gets_every_default() {
    let config = read_with(&agent(""), &[]).unwrap();
    assert_eq!(config.server_port, 8081);
    assert_eq!(config.socket_path, Path::new("/tmp/spire-agent/public/api.sock"));
    assert_eq!(config.data_dir, Path::new("."));
    assert_eq!(config.bootstrap, Bootstrap::Insecure);
    assert_eq!(config.no_identity_hold, Duration::from_secs(1));
    assert_eq!(config.sync_interval, Duration::from_secs(5));
    assert_eq!((config.x509_svid_cache_max_size, config.jwt_svid_cache_max_size), (1000, 1000));
    assert_eq!(config.workload_key_type, KeyType::EcP256);
    assert!(config.use_sync_authorized_entries && !config.allow_unauthenticated_verifiers);
    assert!(config.health.is_none() && config.telemetry.prometheus.is_none());
}

#[test]
fn flags_beat_the_file() {
    let args = [
        "-serverAddress",
        "other",
        "--serverPort=9000",
        "-trustDomain=other.org",
        "-dataDir",
        "/d",
        "-socketPath",
        "/s/api.sock",
        "-joinToken",
        "token",
        "-logLevel=debug",
    ];
    let config = read_with(&agent(""), &args).unwrap();
    assert_eq!((config.server_address.as_str(), config.server_port), ("other", 9000));
    assert_eq!(config.trust_domain.as_str(), "other.org");
    assert_eq!((config.data_dir, config.socket_path), ("/d".into(), "/s/api.sock".into()));
    assert_eq!(config.join_token.as_ref().map(|t| t.as_str()), Some("token"));
    assert_eq!(config.log.level, logs::Level::Debug);
}

#[test]
fn ports_may_be_quoted_and_booleans_may_not() {
    let text = agent("").replace("8081", "\"0x1F91\"");
    assert_eq!(read_with(&text, &[]).unwrap().server_port, 8081);
    let text = agent("allow_unauthenticated_verifiers = \"true\"");
    assert!(error(&text).contains("unknown type"), "{}", error(&text));
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known_one() {
    let text = agent("socket_pth = \"/x\"");
    let message = error(&text);
    assert!(message.contains("unknown configuration detected"), "{message}");
    assert!(message.contains("socket_path"), "{message}");
}

#[test]
fn required_keys_are_named() {
    for key in ["server_address", "server_port", "trust_domain"] {
        let text: String =
            agent("").lines().filter(|l| !l.trim_start().starts_with(key)).collect::<Vec<_>>().join("\n");
        assert_eq!(error(&text), format!("{key} must be configured"));
    }
    let text = agent("").replace(" insecure_bootstrap = true\n", "");
    assert_eq!(
        error(&text),
        "trust_bundle_path or trust_bundle_url must be configured unless insecure_bootstrap is set"
    );
    assert_eq!(error("agent {}"), "plugins section must be configured");
}

#[test]
fn only_one_source_of_trust_is_allowed() {
    assert_eq!(
        error(&agent("trust_bundle_path = \"/b\"")),
        "only one of insecure_bootstrap or trust_bundle_path can be specified, not both"
    );
    assert_eq!(
        error(&agent("trust_bundle_url = \"https://x/b\"")),
        "only one of insecure_bootstrap or trust_bundle_url can be specified, not both"
    );
    assert_eq!(
        error(&agent("trust_bundle_url = \"https://x/b\"\n trust_bundle_path = \"/b\"")),
        "only one of insecure_bootstrap, trust_bundle_url, or trust_bundle_path can be specified, not the three options"
    );
    assert_eq!(
        error(&trusting("trust_bundle_url = \"https://x/b\"\n trust_bundle_path = \"/b\"")),
        "only one of trust_bundle_url or trust_bundle_path can be specified, not both"
    );
}

/// As [`agent`], without insecure bootstrap.
fn trusting(extra: &str) -> String {
    agent(extra).replace(" insecure_bootstrap = true\n", "")
}

#[test]
fn a_trust_bundle_url_is_https_or_http_over_a_socket() {
    let config = read_with(&trusting("trust_bundle_url = \"https://x:8443/b?a=1\""), &[]).unwrap();
    let url: Uri = "https://x:8443/b?a=1".parse().unwrap();
    assert_eq!(config.bootstrap, Bootstrap::Url { url, socket: None, format: BundleFormat::Pem });
    let socket = "trust_bundle_format = \"spiffe\"\n trust_bundle_unix_socket = \"/s\"\n trust_bundle_url =";
    let config = read_with(&trusting(&format!("{socket} \"http://x/b\"")), &[]).unwrap();
    let url: Uri = "http://x/b".parse().unwrap();
    let socket_path = Some("/s".into());
    assert_eq!(config.bootstrap, Bootstrap::Url { url, socket: socket_path, format: BundleFormat::Spiffe });
    let flag = read_with(&trusting(""), &["-trustBundleUrl", "https://y/b"]).unwrap();
    assert!(matches!(flag.bootstrap, Bootstrap::Url { socket: None, .. }));
    for (extra, text) in [
        ("trust_bundle_url = \"foo.bar\"".to_owned(), "trust bundle URL must start with https://"),
        ("trust_bundle_url = \"http://x/b\"".to_owned(), "trust bundle URL must start with https://"),
        (
            format!("{socket} \"https://x/b\""),
            "trust bundle URL must start with http:// when used with trust bundle unix socket",
        ),
        (
            format!("{socket} \"http://x/b?spiffe-a=b\""),
            "trust_bundle_url query params can not start with spiffe-",
        ),
        (
            format!("{socket} \"http://x/b?a=b&spire-a=b\""),
            "trust_bundle_url query params can not start with spire-",
        ),
        (
            "trust_bundle_path = \"/b\"\n trust_bundle_unix_socket = \"/s\"".to_owned(),
            "if trust_bundle_unix_socket is specified, so must be trust_bundle_url",
        ),
    ] {
        assert_eq!(error(&trusting(&extra)), text, "{extra}");
    }
    let text = error(&trusting("trust_bundle_url = \"https://a b/\""));
    assert!(text.starts_with("unable to parse trust bundle URL: "), "{text}");
    let text = error(&trusting("trust_bundle_path = \"/b\"\n trust_bundle_format = \"der\""));
    assert!(
        text.starts_with("invalid value for trust_bundle_format, expected \"pem\" or \"spiffe\""),
        "{text}"
    );
}

#[test]
fn the_join_token_comes_from_a_file_or_directly_but_not_both() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, " secret\n").unwrap();
    let file = format!("join_token_file = \"{}\"", path.display());
    let token = read_with(&agent(&file), &[]).unwrap().join_token;
    assert_eq!(token.as_ref().map(|t| t.as_str()), Some("secret"));
    let both = read_with(&agent(&file), &["-joinToken=x"]);
    assert_eq!(both.unwrap_err(), "only one of join_token or join_token_file can be specified, not both");
    std::fs::write(&path, "\n").unwrap();
    assert!(error(&agent(&file)).starts_with("join token file is empty"));
}

#[test]
fn the_token_is_in_no_debug_output() {
    let config = read_with(&agent("join_token = \"secret-token\""), &[]).unwrap();
    assert!(!format!("{config:?}").contains("secret-token"));
}

#[test]
fn limits_of_single_keys_hold() {
    for (extra, part) in [
        ("availability_target = \"1h\"", "availability_target must be at least 24h0m0s"),
        ("workload_x509_svid_key_type = \"ec-p521\"", "expected rsa-2048, ec-p256 or ec-p384"),
        ("x509_svid_cache_max_size = -1", "x509_svid_cache_max_size should not be negative"),
        ("experimental { no_identity_hold = \"2m\" }", "expected at most 1m"),
        ("log_level = \"loud\"", "log_level"),
        (
            "admin_socket_path = \"/tmp/spire-agent/public/x/a.sock\"",
            "admin socket cannot be in the same directory",
        ),
        ("rebootstrap_mode = \"sometimes\"", "unknown rebootstrap mode specified: sometimes"),
        ("rebootstrap_mode = \"auto\"", "not supported yet: agent.rebootstrap_mode"),
        ("sds { default_svid_name = \"x\" }", "not supported yet"),
    ] {
        let message = error(&agent(extra));
        assert!(message.contains(part), "{extra}: {message}");
    }
}

#[test]
fn a_hold_of_zero_is_no_hold() {
    let config = read_with(&agent("experimental { no_identity_hold = \"0s\" }"), &[]).unwrap();
    assert!(config.no_identity_hold.is_zero());
    assert_eq!(config.warnings.len(), 1, "experimental keys are warned about");
}

#[test]
fn plugins_that_are_not_built_say_so_and_unknown_ones_are_unknown() {
    let text = agent("").replace("NodeAttestor \"join_token\"", "NodeAttestor \"k8s_psat\"");
    assert_eq!(error(&text), "not supported yet: plugins.NodeAttestor \"k8s_psat\"");
    let text = agent("").replace("KeyManager \"memory\"", "KeyManager \"nope\"");
    assert_eq!(
        error(&text),
        "failed to load plugin \"nope\": no built-in plugin \"nope\" for type \"KeyManager\""
    );
    let text = agent("").replace("KeyManager \"memory\" { plugin_data {} }", "");
    assert_eq!(error(&text), "KeyManager: constraint not satisfied: expected exactly 1 but got 0");
}

#[test]
fn plugins_read_their_settings() {
    let text = agent("")
        .replace(
            "NodeAttestor \"join_token\" { plugin_data {} }",
            "NodeAttestor \"x509pop\" { plugin_data { private_key_path = \"k\" certificate_path = \"c\" } }",
        )
        .replace(
            "KeyManager \"memory\" { plugin_data {} }",
            "KeyManager \"disk\" { plugin_data { directory = \"d\" } }",
        )
        .replace(
            "WorkloadAttestor \"unix\" { plugin_data {} }",
            "WorkloadAttestor \"unix\" { plugin_data { discover_workload_path = true workload_size_limit = 5 } }",
        );
    let config = read_with(&text, &[]).unwrap();
    assert!(matches!(config.node_attestor, NodeAttestorConfig::X509pop { intermediates_path: None, .. }));
    assert_eq!(config.key_manager, KeyManagerConfig::Disk { directory: "d".into() });
    assert!(config.unix.discover_workload_path);
    assert_eq!(config.unix.workload_size_limit, 5);
}

#[test]
fn the_form_that_helm_writes_is_read() {
    let text = r#"{
      "agent": {"data_dir": "/run/spire", "log_level": "info", "server_address": "spire-server", "server_port": "443",
        "socket_path": "/tmp/x/socket", "trust_bundle_path": "/run/spire/bundle/bundle.crt", "trust_domain": "example.org"},
      "health_checks": {"bind_address": "0.0.0.0", "bind_port": "9982", "listener_enabled": true, "live_path": "/live", "ready_path": "/ready"},
      "telemetry": [{"Prometheus": [{"host": "0.0.0.0", "port": 9988}]}],
      "plugins": {"KeyManager": [{"memory": {"plugin_data": null}}], "NodeAttestor": [{"join_token": {"plugin_data": {}}}],
        "WorkloadAttestor": [{"unix": {"plugin_data": {}}}]}
    }"#;
    let config = read_with(text, &[]).unwrap();
    assert_eq!(config.server_port, 443);
    assert_eq!(config.health.unwrap().port, 9982);
    assert_eq!(config.telemetry.prometheus, Some(("0.0.0.0".into(), 9988)));
}

#[test]
fn mistakes_on_the_command_line_are_named_as_go_names_them() {
    let parse = |args: &[&str]| {
        let args: Vec<_> = args.iter().map(|a| (*a).to_owned()).collect();
        Flags::parse(&args).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(parse(&["-nope"]), Err("flag provided but not defined: -nope".into()));
    assert_eq!(parse(&["-dataDir"]), Err("flag needs an argument: -dataDir".into()));
    assert_eq!(parse(&["-disableSDSAPI"]), Err("not supported yet: -disableSDSAPI".into()));
    assert_eq!(parse(&["stray"]), Err("unexpected argument: stray".into()));
}

#[test]
fn a_missing_file_asks_for_the_flag() {
    let error = load(&["-config".into(), "/nowhere/agent.conf".into()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not find config file /nowhere/agent.conf: please use the -config flag"
    );
}

fn from_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[test]
fn the_example_file_has_every_key_and_is_valid() {
    let path = from_root("deploy/config/agent.conf");
    let expected = avouch::config::table::example(&table::FILE);
    if std::env::var_os("AVOUCH_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, expected, "run this test with AVOUCH_WRITE_GOLDEN=1 to write the file anew");
    read_with(&text, &[]).unwrap();
}

/// The example file with every commented key put in force, but for the plugins that stand for a choice and the metrics
/// page, which is on by being there.
fn everything_in_force(example: &str) -> String {
    let mut text = String::new();
    let mut left_out = None;
    for line in example.lines() {
        let indent = line.len() - line.trim_start().len();
        let body = line.trim_start();
        let key = body.strip_prefix('#').filter(|b| !b.is_empty() && !b.starts_with(' ')).unwrap_or(body);
        let choice = ["NodeAttestor", "KeyManager", "Prometheus"].iter().any(|name| key.starts_with(name));
        if left_out.is_none() && body.starts_with('#') && choice {
            left_out = Some(indent);
        }
        if left_out.is_none() {
            text.push_str(key);
            text.push('\n');
        } else if left_out == Some(indent) && key == "}" {
            left_out = None;
        }
    }
    text
}

#[test]
fn every_default_of_the_example_file_is_what_the_code_does_without_the_key() {
    let text = std::fs::read_to_string(from_root("deploy/config/agent.conf")).unwrap();
    let full = everything_in_force(&text);
    for key in ["admin_socket_path", "no_identity_hold", "live_path", "MetricPrefix", "workload_size_limit"] {
        assert!(full.contains(&format!("\n{key} = ")), "{key} is not in force in\n{full}");
    }
    let (as_it_stands, spelt_out) = (read_with(&text, &[]).unwrap(), read_with(&full, &[]).unwrap());
    // Naming an experimental key is worth a warning, even with its default.
    assert!(as_it_stands == AgentConfig { warnings: vec![], ..spelt_out });
}

#[test]
fn the_units_name_one_socket_and_flags_that_exist() {
    let unit =
        |kind| std::fs::read_to_string(from_root(&format!("deploy/systemd/avouch-agent.{kind}"))).unwrap();
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)).map(ToOwned::to_owned);
        line.unwrap_or_else(|| panic!("no {key}"))
    };
    let start = value(&unit("service"), "ExecStart=/usr/bin/avouch-agent run ");
    let args: Vec<_> = start.split(' ').map(ToOwned::to_owned).collect();
    let flags = Flags::parse(&args).unwrap();
    assert_eq!(flags.socket_path, Some(value(&unit("socket"), "ListenStream=")));
    // The settings beside it keep to the directories that the unit makes.
    let example = std::fs::read_to_string(from_root("deploy/config/agent.conf")).unwrap();
    let state = value(&unit("service"), "StateDirectory=");
    assert_eq!(read_with(&example, &[]).unwrap().data_dir, Path::new("/var/lib").join(state));
}

#[test]
fn the_list_of_keys_not_supported_yet_only_shrinks() {
    let path = from_root("tests/golden/not_supported_agent.txt");
    let now = table::not_supported_yet();
    if std::env::var_os("AVOUCH_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, now.join("\n") + "\n").unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap();
    let known: Vec<_> = known.lines().collect();
    assert_eq!(now, known, "remove keys that are built; never add one without a decision");
}
