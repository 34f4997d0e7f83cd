//! SPIRE's typing rules, one by one, and what is refused with which words.

use super::*;
use crate::config::hcl::parse;

static SUBJECT: Table = Table {
    name: "ca_subject",
    keys: &[KeySpec::texts("country", "[]", ""), KeySpec::text("common_name", "\"\"", "")],
};
static PLUGIN: Table =
    Table { name: "plugin", keys: &[KeySpec::any("plugin_data", ""), KeySpec::bool("enabled", "true", "")] };
static DATA: Table = Table { name: "data", keys: &[KeySpec::text("keys_path", "", "")] };
static SERVER: Table = Table {
    name: "server",
    keys: &[
        KeySpec::int("bind_port", "8081", ""),
        KeySpec::text("log_level", "\"INFO\"", ""),
        KeySpec::bool("audit_log_enabled", "false", ""),
        KeySpec::float("share", "", ""),
        KeySpec::duration("ca_ttl", "\"24h\"", ""),
        KeySpec::texts("admin_ids", "[]", ""),
        KeySpec::block("ca_subject", &SUBJECT, ""),
        KeySpec::blocks("peer", &SUBJECT, ""),
        KeySpec::bool("profiling_enabled", "false", "").not_yet(),
        KeySpec::int("profiling_port", "0", "").not_yet(),
        KeySpec::any("federation", "").not_yet(),
    ],
};
static PLUGINS: Table = Table {
    name: "plugins",
    keys: &[
        KeySpec::labelled("KeyManager", &PLUGIN, ""),
        KeySpec::labelled("NodeAttestor", &PLUGIN, ""),
        KeySpec::labelled("Notifier", &PLUGIN, "").not_yet(),
    ],
};
static FILE: Table = Table {
    name: "",
    keys: &[KeySpec::block("server", &SERVER, ""), KeySpec::block("plugins", &PLUGINS, "")],
};

fn with<T>(text: &str, look: impl FnOnce(Section<'_>) -> T) -> T {
    let document = parse(text).unwrap();
    look(read(&document, &FILE).unwrap_or_else(|e| panic!("{e}\n{text}")))
}

fn server<T>(keys: &str, look: impl FnOnce(Section<'_>) -> T) -> T {
    with(&format!("server {{ {keys} }}"), |file| look(file.block("server").unwrap()))
}

fn refused(text: &str) -> ConfigError {
    read(&parse(text).unwrap(), &FILE).unwrap_err()
}

#[test]
fn a_number_may_be_quoted_hexadecimal_or_octal() {
    for (text, port) in
        [("8081", 8081), ("\"8081\"", 8081), ("\"0x1F91\"", 8081), ("0x10", 16), ("0644", 420), ("-1", -1)]
    {
        assert_eq!(server(&format!("bind_port = {text}"), |s| s.int("bind_port")), Some(port), "{text}");
    }
}

#[test]
fn a_text_that_is_no_number_is_refused_in_gos_words() {
    assert_eq!(
        refused("server { bind_port = \"abc\" }").to_string(),
        "strconv.ParseInt: parsing \"abc\": invalid syntax"
    );
    assert_eq!(
        refused("server { bind_port = 99999999999999999999 }").to_string(),
        "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"
    );
}

#[test]
fn a_number_is_text_where_text_is_wanted() {
    assert_eq!(server("log_level = 5", |s| s.text("log_level")), Some("5".into()));
    assert_eq!(
        server("admin_ids = [\"a\", 5]", |s| s.texts("admin_ids")),
        Some(vec!["a".into(), "5".into()])
    );
}

#[test]
fn a_bool_is_only_a_bool() {
    assert_eq!(server("audit_log_enabled = true", |s| s.bool("audit_log_enabled")), Some(true));
    assert_eq!(
        refused("server { audit_log_enabled = \"true\" }").to_string(),
        "At 1:30: root.server.audit_log_enabled: unknown type *ast.LiteralType"
    );
    assert!(matches!(refused("server { audit_log_enabled = 1 }"), ConfigError::Type(_)));
}

#[test]
fn other_wrong_types_are_refused_with_their_place() {
    for (keys, message) in [
        ("bind_port = 1.5", "At 1:22: root.server.bind_port: unknown type *ast.LiteralType"),
        ("bind_port = true", "At 1:22: root.server.bind_port: unknown type *ast.LiteralType"),
        ("log_level = true", "At 1:22: root.server.log_level: unknown type for string *ast.LiteralType"),
        ("log_level = []", "At 1:22: root.server.log_level: unknown type for string *ast.ListType"),
        ("admin_ids = \"a\"", "At 1:22: unknown slice type: *ast.LiteralType"),
        (
            "ca_subject = 5",
            "At 1:23: root.server.ca_subject: not an object type for struct (*ast.LiteralType)",
        ),
    ] {
        assert_eq!(refused(&format!("server {{ {keys} }}")).to_string(), message, "{keys}");
    }
}

#[test]
fn keys_are_found_in_any_case() {
    with("SERVER { Log_Level = \"x\" }", |file| {
        assert_eq!(file.block("server").unwrap().text("log_level"), Some("x".into()));
    });
}

#[test]
fn two_blocks_are_one_and_the_last_value_wins() {
    let text = "server { bind_port = 1 log_level = \"a\" }\nserver { bind_port = 2 bind_port = 3 }";
    with(text, |file| {
        let server = file.block("server").unwrap();
        assert_eq!((server.int("bind_port"), server.text("log_level")), (Some(3), Some("a".into())));
    });
}

#[test]
fn lists_around_blocks_as_json_writers_make_them_do_not_matter() {
    let text = r#"{"server":[{"ca_subject":[{"country":["US"],"common_name":"x"}]}],
        "plugins":[{"KeyManager":[{"disk":[{"plugin_data":[{"keys_path":"/k"}]}]}]}]}"#;
    with(text, |file| {
        let subject = file.block("server").unwrap().block("ca_subject").unwrap();
        assert_eq!(
            (subject.texts("country"), subject.text("common_name")),
            (Some(vec!["US".into()]), Some("x".into()))
        );
        let managers = file.block("plugins").unwrap().labelled("KeyManager");
        assert_eq!(managers[0].0, "disk");
        let data = managers[0].1.any("plugin_data").unwrap().retype(&DATA).unwrap();
        assert_eq!(data.text("keys_path"), Some("/k".into()));
    });
}

#[test]
fn labelled_blocks_come_in_file_order_and_repeats_are_told() {
    let text =
        "plugins { NodeAttestor \"b\" {} KeyManager \"m\" {} NodeAttestor \"a\" {} NodeAttestor \"b\" {} }";
    with(text, |file| {
        let labels: Vec<_> =
            file.block("plugins").unwrap().labelled("NodeAttestor").into_iter().map(|(l, _)| l).collect();
        assert_eq!(labels, ["b", "a", "b"]);
    });
}

#[test]
fn repeated_blocks_can_be_read_one_by_one() {
    let names = server("peer { common_name = \"a\" } peer { common_name = \"b\" }", |s| {
        s.blocks("peer").iter().filter_map(|b| b.text("common_name")).collect::<Vec<_>>()
    });
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn plugin_data_that_is_null_or_empty_is_none() {
    for text in [
        r#"{"plugins":{"KeyManager":{"memory":{"plugin_data":null}}}}"#,
        r#"{"plugins":{"KeyManager":{"memory":{"plugin_data":{}}}}}"#,
        r#"{"plugins":{"KeyManager":{"memory":null}}}"#,
        "plugins { KeyManager \"memory\" { plugin_data {} } }",
        "plugins { KeyManager \"memory\" { plugin_data = {} } }",
        "plugins { KeyManager \"memory\" {} }",
    ] {
        with(text, |file| {
            let managers = file.block("plugins").unwrap().labelled("KeyManager");
            assert_eq!((managers.len(), managers[0].1.any("plugin_data").is_none()), (1, true), "{text}");
        });
    }
}

#[test]
fn an_absent_block_and_an_empty_one_are_told_apart() {
    assert!(server("ca_subject {}", |s| s.block("ca_subject").is_some_and(|b| b.is_empty())));
    assert!(server("", |s| s.block("ca_subject").is_none()));
    with("{\"server\":null}", |file| assert!(file.block("server").is_none()));
}

#[test]
fn durations_are_gos() {
    let read = |text: &str| server(&format!("ca_ttl = \"{text}\""), |s| s.duration("ca_ttl"));
    assert_eq!(read("1h30m"), Ok(Some(Duration::from_secs(5400))));
    assert_eq!(server("", |s| s.duration("ca_ttl")), Ok(None));
    let error = read("1d").unwrap_err().to_string();
    assert_eq!(error, "could not parse server.ca_ttl: time: unknown unit \"d\" in duration \"1d\"");
    assert!(read("-1h").unwrap_err().to_string().ends_with("is negative"));
}

#[test]
fn all_unknown_keys_are_told_at_once_with_place_and_guess() {
    let error = refused("nope = 1\nserver {\n  bind_prot = 1\n  ca_subject { contry = [] }\n}");
    assert_eq!(
        error.to_string(),
        "unknown configuration detected: `nope` in the top level, line 1; \
         `bind_prot` in server, line 3 (did you mean `bind_port`?); \
         `contry` in server.ca_subject, line 4 (did you mean `country`?)"
    );
}

#[test]
fn unknown_keys_of_plugins_are_found_below_their_label() {
    let ConfigError::Unknown(keys) = refused("plugins { KeyManager \"disk\" { enable = true } }") else {
        panic!("not found")
    };
    assert_eq!(
        (keys[0].section.as_str(), keys[0].did_you_mean.as_deref()),
        ("plugins.KeyManager.disk", Some("enabled"))
    );
}

#[test]
fn keys_not_built_are_refused_together() {
    let text = "server { profiling_enabled = true profiling_port = 6060 federation { x = 1 } } \
                plugins { Notifier \"k8sbundle\" {} }";
    assert_eq!(
        refused(text).to_string(),
        "not supported yet: server.profiling_enabled, server.profiling_port, server.federation, plugins.Notifier"
    );
}

#[test]
fn keys_not_built_may_say_what_holds_anyway() {
    let text =
        "server { profiling_enabled = false profiling_port = \"0\" federation {} } plugins { Notifier {} }";
    with(text, |file| assert!(file.block("server").unwrap().has("federation")));
}

#[test]
fn a_block_of_another_table_is_checked_against_it() {
    let text = "plugins { KeyManager \"disk\" { plugin_data { keys_pth = \"/k\" } } }";
    with(text, |file| {
        let managers = file.block("plugins").unwrap().labelled("KeyManager");
        let data = managers[0].1.any("plugin_data").unwrap();
        let error = data.retype(&DATA).unwrap_err().to_string();
        assert!(error.contains("`keys_pth` in plugins.KeyManager.disk.plugin_data"), "{error}");
        assert!(error.contains("did you mean `keys_path`?"), "{error}");
        assert_eq!(data.print(), "keys_pth = \"/k\"\n");
    });
}

#[test]
fn a_guess_is_near_or_none() {
    let words = ["bind_port", "bind_address", "data_dir"];
    let guess = |word| nearest(word, words.into_iter());
    assert_eq!(guess("BindPort"), Some("bind_port"));
    assert_eq!(guess("datadir"), Some("data_dir"));
    assert_eq!(guess("socket_path"), None);
    assert_eq!(guess("x"), None);
    assert_eq!(guess(&"bind_port".repeat(20)), None);
}
