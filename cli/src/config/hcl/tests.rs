//! Every form of HCL 1 and JSON that SPIRE users write, and texts that nobody should.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Object {
    parse(text).unwrap_or_else(|e| panic!("{e}\n{text}")).root
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// A short form of a document, for comparing by eye.
fn short(object: &Object) -> String {
    let items: Vec<_> =
        object.items.iter().map(|i| format!("{}={}", i.key.text, short_value(&i.value.value))).collect();
    format!("{{{}}}", items.join(" "))
}

fn short_value(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(t) => t.clone(),
        Value::Float(t) => format!("{t}f"),
        Value::Text(t) => format!("{t:?}"),
        Value::List(list) => {
            let list: Vec<_> = list.iter().map(|n| short_value(&n.value)).collect();
            format!("[{}]", list.join(" "))
        }
        Value::Object(object) => short(object),
    }
}

fn reads(text: &str, expected: &str) {
    assert_eq!(short(&read(text)), expected, "{text}");
}

#[test]
fn blocks_may_be_nested_on_one_line() {
    reads(
        "plugins { NodeAttestor \"join_token\" { plugin_data {} } KeyManager \"memory\" { plugin_data = {} } }",
        "{plugins={NodeAttestor={join_token={plugin_data={}}} KeyManager={memory={plugin_data={}}}}}",
    );
}

#[test]
fn attributes_are_parted_by_lines_spaces_or_commas() {
    for text in ["a = 1\nb = 2", "a = 1 b = 2", "a = 1, b = 2", "a=1,b=2,", "\ta\t=\n1\r\nb = 2\r\n"] {
        reads(text, "{a=1 b=2}");
    }
    reads("x { a = 1, b = [], c {}, }", "{x={a=1 b=[] c={}}}");
}

#[test]
fn keys_may_be_quoted_dotted_or_dashed() {
    reads(
        "\"server\" { \"a key\" = 1 }\na.b-c_d = 2\nhealth-checks {}",
        "{server={a key=1} a.b-c_d=2 health-checks={}}",
    );
}

#[test]
fn repeats_and_order_are_kept() {
    reads("b = 1\na = 2\nb = 3\nx {}\nx {}", "{b=1 a=2 b=3 x={} x={}}");
}

#[test]
fn an_assigned_block_and_a_bare_one_are_the_same() {
    assert_eq!(read("server = { a = 1 }"), read("server { a = 1 }"));
    assert_eq!(read("A \"b\" \"c\" { x = 1 }"), read("A = { b = { c = { x = 1 } } }"));
}

#[test]
fn comments_have_three_forms() {
    reads("# one\na = 1 # two\n// three\nb /* four\n five */ = /**/ 2 // six", "{a=1 b=2}");
    reads("l = [ # x\n 1, // y\n /* z */ 2,\n]", "{l=[1 2]}");
    reads("u = \"spiffe://td # no comment\"", "{u=\"spiffe://td # no comment\"}");
}

#[test]
fn numbers_keep_their_spelling() {
    reads(
        "a = 0x1F91\nb = 0644\nc = -5\nd = 1.5\ne = -2e10\nf = 1E-3",
        "{a=0x1F91 b=0644 c=-5 d=1.5f e=-2e10f f=1E-3f}",
    );
    assert_eq!(error("a = 10m"), "At 1:5: number expected, `10m` came; quote it if it is text");
    assert!(parse("a = -").is_err() && parse("a = 0x").is_err() && parse("a = 1e").is_err());
}

#[test]
fn escapes_are_those_of_go() {
    reads(r#"a = "\"\\\n\t\r\a\x41\u00e4\U0001F600\101""#, "{a=\"\\\"\\\\\\n\\t\\r\\u{7}Aä😀A\"}");
    assert_eq!(error(r#"a = "\q""#), "At 1:7: unknown escape sequence");
    assert_eq!(error("a = \"x\ny\""), "At 1:5: string not terminated");
}

#[test]
fn variables_stay_as_written() {
    reads(r#"a = "${X} and $Y"  b = "${f("q")}""#, r#"{a="${X} and $Y" b="${f(\"q\")}"}"#);
}

#[test]
fn heredocs_keep_or_lose_their_indentation() {
    reads("a = <<EOF\n  one\ntwo\nEOF\nb = 1", "{a=\"  one\\ntwo\\n\" b=1}");
    reads("a = <<-EOF\n    one\n      two\n    EOF\n", "{a=\"one\\n  two\\n\"}");
    reads("a = <<-EOF\none\n    EOF\n", "{a=\"one\\n\"}");
    reads("l = [<<A\nx\nA\n, <<B\ny\nB\n]", "{l=[\"x\\n\" \"y\\n\"]}");
    reads("a = <<EOF\nEOFS\nEOF", "{a=\"EOFS\\n\"}");
    assert_eq!(error("a = <<EOF\nx"), "At 1:5: heredoc not terminated");
    assert!(error("a = << EOF\nEOF").contains("heredoc without a marker"));
}

#[test]
fn lists_hold_anything_and_may_end_with_a_comma() {
    reads("l = [1, \"two\", true, [3], { four = 4 },]", "{l=[1 \"two\" true [3] {four=4}]}");
    assert_eq!(error("l = [1 2]"), "At 1:8: expected `,` or `]`, found number `2`");
}

#[test]
fn the_json_form_reads_to_the_same_items() {
    let json = r#"{"server":[{"bind_port":"8081","ca_subject":[{"country":["US"]}]}],
        "plugins":{"KeyManager":[{"memory":{"plugin_data":null}}]},"f":1.5,"n":-1,"b":true,"":{},"server":{}}"#;
    reads(
        json,
        "{server=[{bind_port=\"8081\" ca_subject=[{country=[\"US\"]}]}] \
         plugins={KeyManager=[{memory={plugin_data=null}}]} f=1.5f n=-1 b=true ={} server={}}",
    );
    assert_eq!(read("\n { \"a\" : [ 1 , \"\\u00e4\" ] } \n"), read("a = [1, \"ä\"]"));
}

#[test]
fn broken_json_is_told_with_its_place() {
    assert_eq!(error("{\"a\": 1,}"), "At 1:9: expected a key in quotes");
    assert_eq!(error("{\"a\": 1} x"), "At 1:10: expected the end of the text");
    assert_eq!(error("{\"a\" 1}"), "At 1:6: expected `:`");
    assert_eq!(error("{\n\"a\": nope}"), "At 2:6: expected a value");
    assert_eq!(error("{\"a\": 01}"), "At 1:7: `01` is no number");
    assert_eq!(error("{\"a\": \"x"), "At 1:7: string not terminated");
    assert_eq!(error("{\"a\": 1"), "At 1:8: expected `,` or `}`");
}

#[test]
fn mistakes_are_told_with_their_place() {
    assert_eq!(error("server {\n  a = 1\n"), "At 3:1: expected a key or `}`, found the end of the text");
    assert_eq!(error("a = 1\n}"), "At 2:1: expected a key, found `}`");
    assert_eq!(error("a\n"), "At 2:1: expected `=` or `{`, found the end of the text");
    assert_eq!(error("a \"b\" = 1"), "At 1:7: expected `{`, found `=`");
    assert_eq!(error("a = nope"), "At 1:5: expected a value, found `nope`");
    assert_eq!(error("a = 1;"), "At 1:6: character ';' is not allowed here");
    assert_eq!(error("/* x"), "At 1:1: comment not terminated");
    assert_eq!(error("= 1"), "At 1:1: expected a key, found `=`");
}

#[test]
fn an_empty_text_is_an_empty_document() {
    for text in ["", "  \n", "# nothing\n", "\u{feff}", "{}"] {
        reads(text, "{}");
    }
}

#[test]
fn depth_and_size_are_limited() {
    let blocks = |n: usize| format!("{}{}", "a {".repeat(n), "}".repeat(n));
    assert!(parse(&blocks(64)).is_ok());
    assert!(error(&blocks(65)).contains("nested more than 64 levels"));
    assert!(error(&blocks(100_000)).contains("nested more than 64 levels"));
    assert!(error(&format!("a = {}", "[".repeat(100_000))).contains("nested more than 64 levels"));
    assert!(error(&format!("{{\"a\":{}", "[".repeat(100_000))).contains("nested more than 64 levels"));
    assert!(error(&format!("a {} {{}}", "\"b\" ".repeat(100))).contains("nested more than 64 levels"));
    assert!(error(&" ".repeat((1 << 20) + 1)).contains("at most 1048576"));
}

fn key() -> impl Strategy<Value = Key> {
    "[a-zA-Z_][a-zA-Z0-9_.-]{0,5}|[ -~]{0,5}|true|\\PC{0,3}"
        .prop_map(|text| Key { text, pos: Pos::default() })
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|n| Value::Number(n.to_string())),
        "-?[0-9]{1,4}\\.[0-9]{1,4}(e[-+]?[0-9])?".prop_map(Value::Float),
        "\\PC{0,8}|[\\x00-\\x7f]{0,8}|[${}\"\\\\]{0,6}".prop_map(Value::Text),
    ];
    let node = |value| Node { value, pos: Pos::default() };
    leaf.prop_map(node).prop_recursive(4, 24, 4, move |inner| {
        let item = (key(), inner.clone()).prop_map(|(key, value)| Item { key, value });
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::List),
            prop::collection::vec(item, 0..4).prop_map(|items| Value::Object(Object { items })),
        ]
        .prop_map(node)
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,40}|[a-c =\"{}\\[\\],<\\-\n$\\\\#/*0-9.x]{0,40}") {
        let _ = parse(&text);
        let _ = parse(&format!("{{{text}"));
        let _ = parse(&format!("a = <<E\n{text}\nE\n{text}"));
    }

    #[test]
    fn what_is_printed_reads_back_the_same(
        items in prop::collection::vec((key(), node()).prop_map(|(key, value)| Item { key, value }), 0..4)
    ) {
        let object = Object { items };
        let text = print(&object);
        prop_assert_eq!(parse(&text).map_err(|e| format!("{e}\n{text}")).unwrap().root, object);
    }
}
