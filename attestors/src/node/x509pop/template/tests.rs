//! Templates as operators write them, good and bad.

use super::*;

fn facts() -> Facts {
    let text = |text: &str| Value::Text(text.to_owned());
    let list = |list: &[&str]| Value::List(list.iter().map(|s| (*s).to_owned()).collect());
    let map = |members: Vec<(&str, Value)>| {
        Value::Map(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    };
    let subject = map(vec![
        ("CommonName", text("Node-7.example.org")),
        ("SerialNumber", text("")),
        ("Organization", list(&["Acme", "Ops"])),
    ]);
    [
        ("PluginName", text("x509pop")),
        ("Fingerprint", text("0abc")),
        ("DNSNames", list(&["a.example.org", "b.example.org"])),
        ("URISanSelectors", map(vec![("zone", text("a/b"))])),
        ("Subject", subject),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn render(text: &str) -> Result<String, String> {
    Template::parse(text)?.render(&facts())
}

#[test]
fn fields_lists_and_selectors_make_a_path() {
    for (template, path) in [
        ("/{{.PluginName}}/{{ .Fingerprint }}", "/x509pop/0abc"),
        ("/n/{{ .Subject.CommonName }}", "/n/Node-7.example.org"),
        ("/{{ .URISanSelectors.zone }}/x", "/a/b/x"),
        ("/{{ index .URISanSelectors \"zone\" }}", "/a/b"),
        ("/{{ index .DNSNames 1 }}", "/b.example.org"),
        ("/{{ index .Subject.Organization 0 }}", "/Acme"),
        ("{{ \"/fixed\" }}", "/fixed"),
    ] {
        assert_eq!(render(template).as_deref(), Ok(path), "{template}");
    }
}

#[test]
fn functions_mean_what_they_mean_in_spire() {
    for (template, path) in [
        ("/{{ .Subject.CommonName | lower }}", "/node-7.example.org"),
        ("/{{ lower (trimSuffix \".example.org\" .Subject.CommonName) }}", "/node-7"),
        ("/{{ .Subject.CommonName | trimSuffix \".example.org\" | trimPrefix \"Node-\" }}", "/7"),
        ("/{{ .Subject.CommonName | replace \".\" \"-\" | upper }}", "/NODE-7-EXAMPLE-ORG"),
        ("/{{ trunc 4 .Subject.CommonName }}", "/Node"),
        ("/{{ trunc -3 .Subject.CommonName }}", "/org"),
        ("/{{ substr 5 6 .Subject.CommonName }}", "/7"),
        ("/{{ .DNSNames | join \"_\" }}", "/a.example.org_b.example.org"),
        ("/{{ first .DNSNames }}/{{ last .DNSNames }}", "/a.example.org/b.example.org"),
        ("/{{ .Subject.SerialNumber | default \"none\" }}", "/none"),
        ("/{{ sha1sum .Fingerprint }}", "/a8addbc99f8b3f51d2adbceb605d650b9a8940e2"),
    ] {
        assert_eq!(render(template).as_deref(), Ok(path), "{template}");
    }
}

#[test]
fn trim_marks_take_the_space_around_an_action() {
    assert_eq!(render("/a/  {{- .Fingerprint -}}  /b").as_deref(), Ok("/a/0abc/b"));
}

#[test]
fn what_is_not_understood_is_refused_when_it_is_read() {
    for (template, part) in [
        ("", "empty"),
        ("node/{{ .Fingerprint }}", "expected a slash"),
        ("/{{ .Nope }}", "there is no field .Nope; expected one of .PluginName"),
        ("/{{ .Subject.Nope }}", "there is no field .Subject.Nope"),
        ("/{{ .Subject }}", "there is no field .Subject"),
        ("/{{ uuidv4 }}", "there is no function \"uuidv4\" here; expected one of default"),
        ("/{{ if .Fingerprint }}", "there is no function \"if\""),
        ("/{{ .Fingerprint", "no }} ends"),
        ("/{{ }}", "expected a field"),
        ("/{{ .Fingerprint | .PluginName }}", "expected a function after |"),
        ("/{{ lower (.Fingerprint }}", "parenthesis is not closed"),
        ("/{{ lower .Fingerprint) }}", "parenthesis too many"),
        ("/{{ \"a }}", "no \" ends"),
        ("/{{ .Subject..CommonName }}", "names no field"),
        ("/{{ trunc 1x .Fingerprint }}", "is no number"),
    ] {
        let error = Template::parse(template).unwrap_err();
        assert!(error.contains(part), "{template}: {error}");
    }
    let deep = format!("/{{{{ {}.Fingerprint{} }}}}", "(".repeat(50), ")".repeat(50));
    assert!(Template::parse(&deep).unwrap_err().contains("nested deeper"));
}

#[test]
fn what_a_certificate_lacks_is_an_error_and_no_gap_in_the_path() {
    for (template, part) in [
        ("/{{ .Subject.SerialNumber }}/x", "is empty for this certificate"),
        ("/{{ .URISanSelectors.rack }}", "has no .URISanSelectors.rack"),
        ("/{{ .SVIDPathTrimmed }}", "has no .SVIDPathTrimmed"),
        ("/{{ index .DNSNames 2 }}", "has 2 members, no number 2"),
        ("/{{ .DNSNames }}", "a list of 2 can't stand in a path"),
        ("/{{ .Fingerprint | join \",\" }}", "wrong number or kind of arguments"),
    ] {
        let error = render(template).unwrap_err();
        assert!(error.contains(part), "{template}: {error}");
    }
}
