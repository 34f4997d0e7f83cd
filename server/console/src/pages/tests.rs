//! Tests of all pages.

use std::collections::BTreeSet;

use avouch_proto::governance_v1 as wire;

use super::fixtures::*;
use super::markup::{Tag, read};
use super::*;

const HOSTILE: &str =
    "\"'><script>alert(1)</script><b onclick=x style=y>&amp;\u{202e}\u{200b}\u{1b}[2K\u{0}\r\n";

/// Every page of an empty server, of a full one, and of one where others wrote what they could.
fn every() -> Vec<(&'static str, String)> {
    [World::empty(), World::full(), World::hostile(HOSTILE)].iter().flat_map(World::pages).collect()
}

/// Signs in again, and comes back to the requests.
const AGAIN: &str = "/sign-in/begin?fresh=1&amp;to=requests";

fn buttons(html: &str) -> BTreeSet<String> {
    let tags = read(html);
    let main = tags.iter().position(|tag| tag.name == "main").unwrap();
    let own = tags.iter().filter(|tag| tag.name == "button" && tag.around.contains(&main));
    own.filter_map(|tag| tag.get("value").map(str::to_owned)).collect()
}

fn set(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// What people see: without tags, and with what was escaped as it was.
fn visible(html: &str) -> String {
    let texts: Vec<_> = read(html).into_iter().map(|tag| tag.text).collect();
    texts.join(" ").replace("&#39;", "'").replace("&#34;", "\"").replace("&#60;", "<")
}

fn asked(me: &str, request: wire::Request, identity: wire::Identity) -> String {
    let mut world = World::empty();
    world.people.push(person("per_c", "Carol", false));
    world.names.insert("per_c".into(), "Carol".into());
    world.overview.people = 3;
    world.me = world.people.iter().find(|person| person.id == me).unwrap().clone();
    world.cards = vec![Card { request, identity: Some(identity), task: "t".into(), shown: "  | x\n".into() }];
    world.requests(false)
}

#[test]
fn every_tag_is_closed_in_its_order() {
    for (_, html) in every() {
        read(&html);
    }
}

#[test]
fn no_text_of_others_becomes_markup() {
    let known: BTreeSet<_> =
        World::full().pages().iter().flat_map(|(_, html)| read(html)).map(|tag| tag.name).collect();
    for (page, html) in World::hostile(HOSTILE).pages() {
        for tag in read(&html) {
            assert!(known.contains(&tag.name), "{page}: <{}>", tag.name);
        }
        assert!(!html.contains("<script>") && !html.contains("alert(1)</"), "{page}");
    }
}

#[test]
fn what_hides_or_reorders_text_is_written_out() {
    for (page, html) in World::hostile(HOSTILE).pages() {
        for tag in read(&html) {
            // A value is what comes back with the form, byte for byte.
            let seen = tag.attributes.iter().filter(|(name, _)| name != "value").map(|(_, value)| value);
            for text in seen.chain([&tag.text]) {
                let hidden = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{200b}' | '\u{202e}');
                assert!(!text.contains(hidden), "{page}, <{}>: {text:?}", tag.name);
            }
        }
        assert!(page == "signed out" || html.contains("\\u{202e}"), "{page}");
    }
}

#[test]
fn nothing_comes_from_elsewhere_and_nothing_is_inline() {
    for (page, html) in every() {
        for Tag { name, attributes, text, .. } in read(&html) {
            assert!(name != "style" && name != "base" && name != "iframe", "{page}");
            assert!(name != "script" || text.is_empty(), "{page}: an inline script");
            for (key, value) in attributes {
                assert!(key != "style" && !key.starts_with("on"), "{page}: {key}");
                let leads = ["href", "src", "action"].contains(&key.as_str());
                // Within the room of the session, whose path no page knows.
                let within = value.starts_with(|c: char| c.is_ascii_lowercase()) && !value.contains(':');
                let whole =
                    ["/", "/sign-in/begin", AGAIN, "/sign-in/begin?fresh=1"].contains(&value.as_str());
                let here =
                    whole || within || ["#", "./", "/assets/"].iter().any(|start| value.starts_with(start));
                assert!(!leads || here, "{page}: {key}={value}");
            }
        }
    }
    assert!(!STYLE.contains("url(") && !STYLE.contains("@import") && !SCRIPT.contains("http"));
}

#[test]
fn every_form_that_changes_something_holds_the_token() {
    for (page, html) in every() {
        let tags = read(&html);
        for (at, form) in tags.iter().enumerate().filter(|(_, tag)| tag.name == "form") {
            let token = tags.iter().filter(|tag| tag.around.contains(&at)).any(|tag| {
                (tag.get("type"), tag.get("name"), tag.get("value"))
                    == (Some("hidden"), Some("token"), Some(TOKEN))
            });
            assert_eq!(token, form.get("method") == Some("post"), "{page}: {form:?}");
        }
    }
}

#[test]
fn every_control_has_a_label() {
    for (page, html) in every() {
        let tags = read(&html);
        let controls = tags.iter().filter(|tag| tag.name == "select" || tag.name == "input");
        for control in controls.filter(|tag| tag.get("type") != Some("hidden")) {
            let label = control.around.iter().any(|at| tags[*at].name == "label");
            assert!(label || control.get("aria-label").is_some(), "{page}: {control:?}");
        }
    }
}

#[test]
fn every_id_is_there_once_and_every_reference_finds_one() {
    for (page, html) in every() {
        let tags = read(&html);
        let ids: Vec<_> = tags.iter().filter_map(|tag| tag.get("id")).collect();
        let unique: BTreeSet<_> = ids.iter().copied().collect();
        assert_eq!(ids.len(), unique.len(), "{page}: {ids:?}");
        let anchors = tags.iter().filter_map(|tag| tag.get("href")?.strip_prefix('#'));
        for reference in tags.iter().filter_map(|tag| tag.get("aria-labelledby")).chain(anchors) {
            assert!(unique.contains(reference), "{page}: {reference}");
        }
    }
}

#[test]
fn a_page_has_one_heading_of_the_first_level_and_every_table_says_what_it_is() {
    for (page, html) in every() {
        let tags = read(&html);
        let many = |name: &str| tags.iter().filter(|tag| tag.name == name).count();
        assert_eq!((many("h1"), many("main"), many("header")), (1, 1, 1), "{page}");
        assert_eq!(many("table"), many("caption"), "{page}");
        assert!(tags.iter().all(|tag| tag.name != "th" || tag.get("scope").is_some()), "{page}");
    }
}

#[test]
fn a_full_page_fits_in_60_kib_with_its_assets() {
    assert!(STYLE.len() <= 10 * 1024 && SCRIPT.len() <= 3 * 1024);
    for (page, html) in World::full().pages() {
        let size = html.len() + STYLE.len() + SCRIPT.len();
        assert!(size <= 60 * 1024, "{page} has {size} bytes");
    }
}

#[test]
fn only_what_fits_its_standing_is_offered() {
    let world = World::empty();
    let offered = |standing: &str| {
        let identity = wire::Identity { standing: standing.into(), ..coder() };
        let buttons = buttons(&world.identity(&identity));
        buttons.difference(&set(&["owner", "end"])).cloned().collect::<BTreeSet<_>>()
    };
    assert_eq!(offered("proposed"), set(&["approve"]));
    assert_eq!(offered("active"), set(&["pause", "stop", "drill"]));
    assert_eq!(offered("paused"), set(&["resume", "stop"]));
    assert_eq!(buttons(&world.identity(&wire::Identity { standing: "stopped".into(), ..coder() })), set(&[]));
}

#[test]
fn only_its_owner_is_asked_to_confirm() {
    let mut world = World::empty();
    let adopted = wire::Identity { confirm_by: NOW + 60, ..coder() };
    assert!(buttons(&world.identity(&adopted)).contains("confirm"));
    world.me = world.people[1].clone();
    assert!(!buttons(&world.identity(&adopted)).contains("confirm"));
}

#[test]
fn who_may_not_do_it_reads_why_in_place_of_the_button() {
    let mut world = World::empty();
    world.me = person("per_c", "Carol", false);
    let active = world.identity(&coder());
    assert!(buttons(&active).is_disjoint(&set(&["pause", "stop", "drill"])));
    assert!(active.contains("Its owner or a security person does that."));
    let proposed = world.identity(&wire::Identity { standing: "proposed".into(), ..coder() });
    assert!(!buttons(&proposed).contains("approve") && proposed.contains("neither owns it nor asked for it"));
    world.me = person("per_a", "Alice", true);
    let paused = wire::Identity { standing: "paused".into(), environment: "prod".into(), ..coder() };
    assert!(!buttons(&world.identity(&paused)).contains("resume"), "nobody resumes his own outside of test");
}

#[test]
fn a_stop_takes_a_second_deliberate_act() {
    let tags = read(&World::empty().identity(&coder()));
    let stop = tags.iter().find(|tag| tag.get("value") == Some("stop")).unwrap();
    let sure = tags.iter().find(|tag| tag.get("name") == Some("sure")).unwrap();
    assert!(sure.get("required").is_some());
    let form = *stop.around.last().unwrap();
    assert!(tags[form].name == "form" && sure.around.contains(&form));
    let details = stop.around.iter().find(|at| tags[**at].name == "details").unwrap();
    assert!(tags[*details].get("open").is_none());
    let others = tags.iter().filter(|tag| tag.name == "button" && tag.around.contains(&form));
    assert_eq!(others.count(), 1, "nothing else is pressed there");
    assert!(!buttons(&World::full().identities()).contains("stop"), "never for several");
}

#[test]
fn a_stale_sign_in_gets_no_yes_and_always_a_no() {
    let world = World::full();
    assert_eq!(
        buttons(&World { me: person("per_b", "Bob", true), ..World::full() }.requests(false)),
        set(&["yes", "no"])
    );
    let stale = world.requests(true);
    assert_eq!(buttons(&stale), set(&["no"]));
    assert!(visible(&stale).contains("avouch console"));
}

#[test]
fn who_came_from_a_provider_is_shown_so_and_signs_in_again_there() {
    let mut world = World::full();
    assert!(visible(&world.home()).contains("signed in by a local link"));
    world.provider = Some("idp.example.org".into());
    let home = visible(&world.home());
    assert!(home.contains("signed in with idp.example.org") && !home.contains("local link"));
    for html in
        [world.requests(true), failed(Some(&world.frame()), true, 409, "Not now", "too late").unwrap()]
    {
        assert!(html.contains("/sign-in/begin?fresh=1") && !html.contains("avouch console"), "{html}");
    }
}

#[test]
fn without_a_provider_a_command_makes_a_link_and_with_one_its_name_stands_there() {
    let link = signed_out("example.org", None).unwrap();
    assert!(link.contains("avouch console") && !link.contains("/sign-in/begin"));
    let provider = signed_out("example.org", Some("idp.example.org")).unwrap();
    assert!(provider.contains("Sign in with idp.example.org") && !provider.contains("avouch console"));
}

#[test]
fn an_account_that_is_nobody_here_reads_what_a_security_person_has_to_type() {
    let told = visible(&stranger("https://idp.example.org", "a|b'c", false).unwrap());
    assert!(told.contains(r"--issuer https://idp.example.org --subject 'a|b'\''c'"), "{told}");
    let waits = visible(&stranger("https://idp.example.org", "7", true).unwrap());
    assert!(waits.contains("avouch person approve"), "{waits}");
}

#[test]
fn a_page_that_leads_out_leads_to_the_provider_alone() {
    let url = "https://idp.example.org/end?a=1&b=\"><script>";
    for tag in read(&leaving("idp.example.org", url).unwrap()) {
        assert_ne!(tag.name, "script");
        for (key, value) in &tag.attributes {
            let outside = value.contains("idp.example.org");
            assert!(!outside || key == "href" || value.starts_with("0; url=https://"), "{key}={value}");
        }
    }
}

#[test]
fn whose_yes_does_not_count_gets_none_and_reads_why() {
    let yes = |html: &str| buttons(html).contains("yes");
    let person_needed = || waiting();
    assert!(yes(&asked("per_b", person_needed(), coder())));
    let own = asked("per_a", person_needed(), coder());
    assert!(!yes(&own) && own.contains("it takes another person"));
    let owner_needed = || wire::Request { needs_owner: true, needs_person: false, ..waiting() };
    assert!(yes(&asked("per_a", owner_needed(), coder())));
    let other = asked("per_c", owner_needed(), coder());
    assert!(!yes(&other) && other.contains("It takes the owner") && other.contains(": Alice."));
    let both = wire::Request { needs_owner: true, owner_yes_by: "per_a".into(), ..waiting() };
    assert!(!yes(&asked("per_a", both.clone(), coder())) && yes(&asked("per_c", both, coder())));
    let helper = || wire::Identity { kind: "helper".into(), ..coder() };
    assert!(
        !yes(&asked("per_a", owner_needed(), helper())) && !yes(&asked("per_c", owner_needed(), helper()))
    );
    assert!(yes(&asked("per_b", owner_needed(), helper())));
    let paused = wire::Identity { standing: "paused".into(), ..coder() };
    assert!(!yes(&asked("per_b", waiting(), paused)));
}

#[test]
fn whoever_is_alone_says_yes_to_his_own_in_test_only() {
    let mut world = World::empty();
    world.overview.people = 1;
    let card = |identity| Card {
        request: waiting(),
        identity: Some(identity),
        task: "t".into(),
        shown: String::new(),
    };
    world.cards = vec![card(coder())];
    assert!(buttons(&world.requests(false)).contains("yes"));
    world.cards = vec![card(wire::Identity { environment: "prod".into(), ..coder() })];
    assert!(!buttons(&world.requests(false)).contains("yes"));
}

#[test]
fn an_answer_carries_the_hash_of_what_was_shown() {
    let tags = read(&World { me: person("per_b", "Bob", true), ..World::full() }.requests(false));
    let hashes = tags.iter().filter(|tag| tag.get("name") == Some("hash")).map(|tag| tag.get("value"));
    assert!(hashes.into_iter().all(|hash| hash == Some("ab".repeat(32).as_str())));
    let forms = tags.iter().filter(|tag| tag.get("action") == Some("requests"));
    assert_eq!(forms.count(), 5, "each is answered by itself");
}

#[test]
fn an_empty_page_names_a_command() {
    let world = World::empty();
    let narrowed = World { filter: Filter { kind: "helper".into(), ..Filter::default() }, ..World::empty() };
    let pages = [
        world.home(),
        world.identities(),
        narrowed.identities(),
        world.identity(&coder()),
        world.requests(false),
        world.log(0),
    ];
    for html in pages {
        let tags = read(&html);
        let empty: Vec<_> = (0..tags.len()).filter(|at| tags[*at].get("class") == Some("none")).collect();
        assert!(!empty.is_empty());
        let named =
            |at: &usize| tags.iter().any(|tag| tag.around.contains(at) && tag.text.starts_with("avouch "));
        assert!(
            empty.iter().all(named) || tags.iter().any(|tag| tag.text.starts_with("avouch audit verify")),
            "{html}"
        );
    }
}

#[test]
fn the_first_sentence_says_how_it_stands() {
    let told = visible(&World::full().home());
    for part in [
        "12 identities are active",
        "1 is paused",
        "3 names run without an owner",
        "2 requests wait for a yes",
    ] {
        assert!(told.contains(part), "{part}");
    }
    assert!(visible(&World::empty().home()).contains("Nothing is governed yet."));
}

#[test]
fn home_says_what_is_not_protected() {
    let mut world = World::full();
    assert!(world.home().contains("Of 3 nodes, 1 node does not follow this server now"));
    assert!(world.home().contains("Only one person is a security person"));
    world.overview.people = 1;
    assert!(world.home().contains("Only one person is active"));
    let bare =
        home(&world.frame(), &Home { found: &[], emergencies: &[], waiting: &[], refused: &[], rules: None })
            .unwrap();
    assert!(bare.contains("No rules are in force"));
}

#[test]
fn home_names_each_emergency_with_both_people_and_the_command_that_ends_or_opens_it() {
    let mut world = World::full();
    let open = visible(&world.home());
    assert!(open.contains("asked by Alice, agreed by Bob: the site is down"), "{open}");
    assert!(open.contains("avouch emergency end em_3f9a0c51d2e7"), "{open}");
    world.emergencies = vec![wire::Emergency { agreed_by: String::new(), ..emergency() }];
    let waits = visible(&world.home());
    assert!(waits.contains("A second person is waited for until") && !waits.contains("agreed by"), "{waits}");
    assert!(waits.contains("avouch emergency agree em_3f9a0c51d2e7"), "{waits}");
    world.emergencies.clear();
    assert!(!world.home().contains("Emergencies"));
}

#[test]
fn a_refusal_says_why_in_words_and_leads_to_who_is_behind_it() {
    let home = visible(&World::full().home());
    assert!(home.contains("no rule allows it") && home.contains("3 minutes ago"));
    for html in [World::full().home(), World::full().log(1)] {
        let leads = |tag: &Tag| tag.get("href") == Some("trace?chain=1&amp;record=4242");
        assert!(read(&html).iter().any(leads), "{html}");
    }
}

#[test]
fn a_trace_says_which_record_proves_each_hop_and_what_none_does() {
    let html = visible(&World::empty().traced());
    assert!(html.contains("record 7 of /spire/agent/a") && html.contains("no record says"), "{html}");
    assert!(html.contains("1 unknown") && !html.contains("Every hop is proven"), "{html}");
}

#[test]
fn nothing_is_said_of_records_that_do_not_hold() {
    let world = World::empty();
    assert!(visible(&world.verified(true)).contains("They hold"));
    let html = visible(&world.verified(false));
    assert!(html.contains("They do not hold") && !html.contains("no gap"), "{html}");
}

#[test]
fn a_stop_shows_who_confirmed_who_is_silent_and_what_is_accepted_outside() {
    let mut world = World::full();
    let until =
        wire::StopNode { decides_until: NOW + 60, ..node("spiffe://example.org/spire/agent/c", false) };
    world.stop.nodes = vec![
        node("spiffe://example.org/spire/agent/a", true),
        node("spiffe://example.org/spire/agent/b", false),
        until,
    ];
    let told = visible(&stopped(&world.frame(), "pause", &world.stop).unwrap());
    for part in
        ["1 of 3 nodes", "the last after 7 ms", "/spire/agent/b", "until it hears from the server again"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(
        told.contains("2026-11-29T02:01:00Z")
            && told.contains("in 1 minute")
            && told.contains("in 10 minutes")
    );
    let nothing = stopped(&world.frame(), "drill", &wire::StopResponse::default()).unwrap();
    assert!(nothing.contains("this was a drill") && nothing.contains("Nothing was given out"));
}

#[test]
fn a_command_in_a_sentence_of_the_server_is_shown_as_one() {
    let html = failed(None, false, 409, "Not now", "It waits: `avouch rules approve 7` <b>`.").unwrap();
    assert!(html.contains("<p>It waits: <code>avouch rules approve 7</code> &#60;b&#62;`.</p>"), "{html}");
}

#[test]
fn of_many_that_something_was_done_to_those_are_named_to_which_it_was_not() {
    let world = World::full();
    let told = |many: usize| {
        let one = |n: usize| Done {
            spiffe_id: format!("{CODER}-{n}"),
            error: if n == 0 { "it is stopped" } else { "" }.into(),
        };
        let done: Vec<_> = (0..many).map(one).collect();
        let page =
            Identities { rows: &[], filter: &world.filter, next_page_token: "", people: &[], done: &done };
        visible(&identities(&world.frame(), &page).unwrap())
    };
    assert!(told(9).contains("Done for 8 of 9") && told(9).contains("/test/coder-0"));
    assert!(told(9).contains("it is stopped") && !told(9).contains("/test/coder-1"));
    assert!(told(2).contains("/test/coder-1"));
}

#[test]
fn an_owner_who_is_not_there_any_more_is_said_to_have_left() {
    let mut world = World::empty();
    assert!(!world.identity(&coder()).contains("has left"));
    world.people.remove(0);
    assert!(world.identity(&coder()).contains("has left"));
}

#[test]
fn the_next_page_is_narrowed_as_this_one() {
    let mut world = World::full();
    world.filter = Filter { owner: "per_a&x".into(), env: "prod".into(), ..Filter::default() };
    let tags = read(&world.identities());
    let next =
        tags.iter().find(|tag| tag.get("rel") == Some("next")).and_then(|tag| tag.get("href")).unwrap();
    assert_eq!(
        next.replace("&#38;", "&"),
        "identities?standing=&kind=&env=prod&owner=per_a%26x&unused=&page=a%26b"
    );
    let chosen = tags.iter().filter(|tag| tag.get("selected").is_some() && tag.get("value") == Some("prod"));
    assert_eq!(chosen.count(), 1);
}

#[test]
fn no_template_turns_escaping_off() {
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/templates")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(
            !text.contains("|safe") && !text.contains("| safe") && !text.contains("escape(\"none"),
            "{text}"
        );
    }
}

/// Relative luminance of `#rgb` or `#rrggbb`, as WCAG defines it.
fn luminance(colour: &str) -> f64 {
    let digits = colour.trim_start_matches('#');
    let wide: String =
        if digits.len() == 3 { digits.chars().flat_map(|c| [c, c]).collect() } else { digits.into() };
    let part = |at: usize| {
        let value = f64::from(u8::from_str_radix(&wide[at..at + 2], 16).unwrap()) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
}

#[test]
fn every_colour_of_text_stands_out_in_light_and_in_dark() {
    let schemes: Vec<_> =
        STYLE.split(":root {").skip(1).map(|part| part.split('}').next().unwrap()).collect();
    assert_eq!(schemes.len(), 2);
    for scheme in schemes {
        let colour = |name: &str| {
            let (_, rest) = scheme.split_once(&format!("--{name}: ")).unwrap();
            luminance(rest.split(';').next().unwrap())
        };
        let contrast = |a: f64, b: f64| (a.max(b) + 0.05) / (a.min(b) + 0.05);
        for ground in ["page", "card", "soft"] {
            for text in ["text", "dim", "accent", "good", "wait", "bad"] {
                assert!(contrast(colour(text), colour(ground)) >= 4.5, "{text} on {ground}");
            }
            assert!(contrast(colour("edge"), colour(ground)) >= 3.0, "the edge of a control on {ground}");
        }
        assert!(contrast(colour("on-accent"), colour("accent")) >= 4.5);
    }
}
