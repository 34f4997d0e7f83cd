//! The pages: the real server, links of the real command line, and an ordinary HTTP client as the browser.

use std::path::Path;

use avouch_tests::cli::{self, Said};
use avouch_tests::{Server, World, eventually, within};
use serde_json::Value;

use crate::asks::{request_in, scene};
use crate::governed::{BEN, CODER, as_user, avouch, can_be_others, first_person, good, json as read};

/// Somebody's browser: one jar of cookies.
struct Browser {
    home: tempfile::TempDir,
    /// `http://127.0.0.1:PORT/ROOM`.
    base: String,
}

/// What came back.
#[derive(Debug)]
struct Seen {
    status: u16,
    /// Where it was at last.
    url: String,
    page: String,
}

impl Seen {
    fn has(&self, texts: &[&str]) -> &Self {
        for text in texts {
            assert!(self.page.contains(text), "expected \"{text}\" in: {} {}", self.status, self.page);
        }
        self
    }

    /// The value of the first hidden field of this name.
    fn field(&self, name: &str) -> String {
        let at =
            self.page.find(&format!("name=\"{name}\"")).unwrap_or_else(|| panic!("no {name}: {}", self.page));
        let rest = &self.page[at..];
        let value = rest.split("value=\"").nth(1).unwrap();
        value.split('"').next().unwrap().to_owned()
    }
}

impl Browser {
    /// Follows a link that a verb printed.
    async fn open(link: &Said) -> (Self, Seen) {
        assert_eq!(link.code, 0, "{link:?}");
        let url = read(link)["url"].as_str().unwrap().to_owned();
        let mut browser = Self { home: tempfile::tempdir().unwrap(), base: String::new() };
        let seen = browser.curl(&url, &["-L", "-H", "Sec-Fetch-Site: none"]).await;
        browser.base = seen.url.trim_end_matches('/').to_owned();
        (browser, seen)
    }

    fn stranger(&self) -> Self {
        Self { home: tempfile::tempdir().unwrap(), base: self.base.clone() }
    }

    async fn curl(&self, url: &str, more: &[&str]) -> Seen {
        let jar = self.home.path().join("jar");
        let jar = jar.to_str().unwrap();
        let plain = ["-s", "-b", jar, "-c", jar, "-w", "\n%{http_code} %{url_effective}", url];
        let said =
            cli::run_program(Path::new("curl"), plain.into_iter().chain(more.iter().copied()), |_| {}).await;
        let (page, last) = said.out.rsplit_once('\n').unwrap_or_else(|| panic!("{said:?}"));
        let (status, url) = last.split_once(' ').unwrap();
        Seen { status: status.parse().unwrap(), url: url.to_owned(), page: page.to_owned() }
    }

    async fn get(&self, path: &str) -> Seen {
        self.curl(&format!("{}{path}", self.base), &[]).await
    }

    /// Sends a form as a browser does that stands on a page of this session.
    async fn post(&self, path: &str, fields: &[&str], more: &[&str]) -> Seen {
        let host = self.base.rsplit_once('/').unwrap().0;
        let origin = format!("Origin: {host}");
        let own = ["-H", &origin, "-H", "Sec-Fetch-Site: same-origin"];
        let own = if more.iter().any(|word| word.starts_with("Origin:")) { &own[2..] } else { &own[..] };
        let fields = fields.iter().flat_map(|field| ["--data-urlencode", field]);
        let all: Vec<_> = own.iter().copied().chain(fields).chain(more.iter().copied()).collect();
        self.curl(&format!("{}{path}", self.base), &all).await
    }
}

async fn link(server: &Server) -> Said {
    avouch(server, &["console", "--json"]).await
}

const PAGES: [&str; 5] = ["/", "/identities", "/identity?name=coder", "/requests", "/log"];

#[tokio::test]
async fn a_link_signs_its_person_in_once_and_nobody_else_sees_a_page() {
    let world = World::start().await;
    let none = link(&world.server).await;
    assert_eq!(none.code, 2, "nobody is a person yet: {none:?}");
    first_person(&world.server).await;
    good(&world.server, CODER).await;
    let said = link(&world.server).await;
    let (browser, home) = Browser::open(&said).await;
    home.has(&["Ada Example", "example.org"]);
    assert_eq!(home.status, 200);
    for path in PAGES {
        assert_eq!(browser.get(path).await.status, 200, "{path}");
        let stranger = browser.stranger().get(path).await;
        assert_eq!(stranger.status, 401, "{path}");
        stranger.has(&["avouch console"]);
        assert!(!stranger.page.contains("Ada") && !stranger.page.contains("coder"), "{}", stranger.page);
    }
    let url = read(&said)["url"].as_str().unwrap().to_owned();
    let again = browser.stranger().curl(&url, &["-L"]).await;
    assert_eq!(again.status, 410, "{again:?}");
    assert_eq!(browser.get("/nothing").await.status, 404);
    let host = browser.base.rsplit_once('/').unwrap().0.to_owned();
    assert_eq!(browser.curl(&host, &[]).await.status, 401, "the cookie is for its room alone");
    // A page elsewhere that leads here signs nobody in, and uses no link up.
    let url = read(&link(&world.server).await)["url"].as_str().unwrap().to_owned();
    let led = browser.stranger().curl(&url, &["-H", "Sec-Fetch-Site: cross-site"]).await;
    assert_eq!(led.status, 403, "{led:?}");
    assert_eq!(browser.stranger().curl(&url, &["-L"]).await.status, 200);
}

#[tokio::test]
async fn a_form_is_taken_from_its_own_page_alone() {
    let world = World::start().await;
    first_person(&world.server).await;
    good(&world.server, CODER).await;
    let (browser, _) = Browser::open(&link(&world.server).await).await;
    let (other, _) = Browser::open(&link(&world.server).await).await;
    let token = format!("token={}", browser.get("/identity?name=coder").await.field("token"));
    let theirs = format!("token={}", other.get("/identity?name=coder").await.field("token"));
    let fields = |token: &str| vec![token.to_owned(), "name=coder".to_owned(), "do=pause".to_owned()];
    let send = async |token: &str, more: &[&str]| {
        let fields = fields(token);
        let fields: Vec<_> = fields.iter().map(String::as_str).collect();
        browser.post("/identity", &fields, more).await.status
    };
    assert_eq!(send("token=", &[]).await, 403);
    assert_eq!(send(&theirs, &[]).await, 403, "a token of another session");
    assert_eq!(send(&token, &["-H", "Origin: http://evil.example.org"]).await, 421);
    assert_eq!(send(&token, &["-H", "Origin: null"]).await, 421);
    assert_eq!(send(&token, &["-H", "Host: evil.example.org"]).await, 421, "a name that leads here");
    assert_eq!(send(&token, &["-H", "Content-Type: text/plain"]).await, 415);
    let shown = good(&world.server, &["identity", "show", "coder"]).await;
    assert_eq!(shown["standing"], "active", "none of them did anything");
    assert_eq!(send(&token, &[]).await, 200);
}

#[tokio::test]
async fn an_identity_is_paused_resumed_and_stopped_from_its_page() {
    let world = World::start().await;
    let ada = first_person(&world.server).await;
    good(&world.server, CODER).await;
    world.grant("/test/coder").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    stream.until("its SVID", |m| m.svids.len() == 1).await;
    let (browser, _) = Browser::open(&link(&world.server).await).await;
    let page = browser.get("/identity?name=coder").await;
    let node = world.agent.id.strip_prefix("spiffe://example.org").unwrap();
    page.has(&["fix-bugs", "Ada Example", node]);
    let token = format!("token={}", page.field("token"));
    let step = async |fields: &[&str]| {
        let fields: Vec<_> =
            [token.as_str(), "name=coder"].into_iter().chain(fields.iter().copied()).collect();
        browser.post("/identity", &fields, &["-L"]).await
    };
    let drill = step(&["do=drill"]).await;
    drill.has(&[node]);
    step(&["do=pause"]).await.has(&[node, " ms"]);
    stream.next().await.unwrap_err();
    step(&["do=resume"]).await.has(&["It goes on."]);
    let unsure = step(&["do=stop"]).await;
    assert_eq!(unsure.status, 400, "{unsure:?}");
    assert_eq!(step(&["do=stop", "sure=on"]).await.status, 200);
    let shown = good(&world.server, &["identity", "show", "coder"]).await;
    assert_eq!(shown["standing"], "stopped");
    let log = avouch(&world.server, &["audit", "export", "--source", "server"]).await;
    let stops: Vec<_> = log.out.lines().filter(|line| line.contains("\"identity_stopped\"")).collect();
    assert!(stops.len() == 1 && stops[0].contains(&ada), "{stops:?}");
    browser.get("/log").await.has(&["identity_stopped"]);
    let gone = step(&["do=resume"]).await;
    assert_eq!(gone.status, 409, "a stop is for good: {gone:?}");
}

#[tokio::test]
async fn several_identities_are_paused_at_once_and_each_says_how_it_went() {
    let world = World::start().await;
    first_person(&world.server).await;
    for name in ["a1", "a2", "a3"] {
        let new: Vec<_> = CODER.iter().map(|word| if *word == "coder" { name } else { word }).collect();
        good(&world.server, &new).await;
    }
    good(&world.server, &["stop", "a3"]).await;
    let (browser, _) = Browser::open(&link(&world.server).await).await;
    let token = format!("token={}", browser.get("/identities").await.field("token"));
    let names: Vec<_> = ["a1", "a3"].map(|name| format!("name=spiffe://example.org/test/{name}")).into();
    let fields = [token.as_str(), "do=pause", &names[0], &names[1]];
    let done = browser.post("/identities", &fields, &[]).await;
    done.has(&["stopped"]);
    let standing =
        async |name: &str| good(&world.server, &["identity", "show", name]).await["standing"].clone();
    assert_eq!((standing("a1").await, standing("a2").await), ("paused".into(), "active".into()));
    browser.get("/identities?standing=paused").await.has(&["/test/a1"]);
}

#[tokio::test]
async fn a_yes_on_the_page_of_requests_lets_exactly_that_call_through() {
    let scene = scene().await;
    let server = &scene.world.server;
    let two = can_be_others();
    if two {
        scene.good(&["person", "add", "Ben Example", "--uid", &BEN.to_string()]).await;
    }
    let mut client = scene.client(&["--task", "fix-4711"]).await;
    let text = "total = 0\n<script>alert(1)</script>";
    let id = request_in(&client.write(text).await);
    let yes_by = if two { as_user(server, BEN, &["console", "--json"]).await } else { link(server).await };
    let (browser, home) = Browser::open(&yes_by).await;
    home.has(&["write_file"]);
    let page = browser.get("/requests").await;
    page.has(&[&id, "tool.call", "&#60;script&#62;"]);
    assert!(!page.page.contains("<script>alert"), "{}", page.page);
    let (token, hash) = (format!("token={}", page.field("token")), format!("hash={}", page.field("hash")));
    let id_field = format!("id={id}");
    let wrong = format!("hash={}", "00".repeat(32));
    let refused = browser.post("/requests", &[&token, &id_field, &wrong, "answer=yes"], &[]).await;
    assert_ne!(refused.status, 303, "another text than the one that was shown: {refused:?}");
    let said = browser.post("/requests", &[&token, &id_field, &hash, "answer=yes"], &["-L"]).await;
    said.has(&["Your yes is kept"]);
    assert_eq!(client.write(text).await, "done");
    assert_eq!(scene.calls(), 1);
    let other = client.write("total = 1").await;
    assert!(other.contains("req_") && scene.calls() == 1, "it fits no other call: {other}");
    if two {
        let (own, _) = Browser::open(&link(server).await).await;
        let page = own.get("/requests").await;
        let fields = [
            format!("token={}", page.field("token")),
            format!("id={}", request_in(&other)),
            format!("hash={}", page.field("hash")),
            "answer=yes".to_owned(),
        ];
        let fields: Vec<_> = fields.iter().map(String::as_str).collect();
        let refused = own.post("/requests", &fields, &[]).await;
        assert!(refused.status == 403 || refused.status == 409, "the owner's yes: {refused:?}");
    }
}

#[tokio::test]
async fn who_leaves_is_signed_out_and_a_run_gets_no_link() {
    if !can_be_others() {
        return;
    }
    let scene = scene().await;
    let server = &scene.world.server;
    scene.good(&["person", "add", "Ben Example", "--uid", &BEN.to_string()]).await;
    let (browser, home) = Browser::open(&as_user(server, BEN, &["console", "--json"]).await).await;
    home.has(&["Ben Example"]);
    let people: Value = read(&scene.good(&["person", "list", "--json"]).await);
    let ben = people["people"].as_array().unwrap().iter().find(|p| p["name"] == "Ben Example").unwrap();
    scene.good(&["person", "leave", ben["id"].as_str().unwrap(), "--apply"]).await;
    assert_eq!(browser.get("/").await.status, 403);
    assert_eq!(browser.get("/").await.status, 401, "the session is over");
    let binary = avouch_tests::daemon::binary("avouch");
    let socket = server.socket.to_str().unwrap();
    let inside = scene
        .run(&["run", "coder", "--", binary.to_str().unwrap(), "console", "--server-socket", socket])
        .await;
    assert!(inside.code != 0 && !inside.out.contains("sign-in"), "{inside:?}");
}

#[tokio::test]
async fn an_open_page_hears_what_is_new() {
    let world = World::start().await;
    first_person(&world.server).await;
    let (browser, home) = Browser::open(&link(&world.server).await).await;
    let last = home.page.split("data-last=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let heard = browser.home.path().join("heard");
    let url = format!("{}/live?after={last}", browser.base);
    let jar = browser.home.path().join("jar");
    let mut live = tokio::process::Command::new("curl")
        .args(["-s", "-N", "-b", jar.to_str().unwrap(), "-o", heard.to_str().unwrap(), &url])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    good(&world.server, CODER).await;
    eventually("the news", async || {
        let text = std::fs::read_to_string(&heard).unwrap_or_default();
        text.contains("event: new\ndata: {\"records\":").then_some(())
    })
    .await;
    browser.post("/sign-out", &[&format!("token={}", home.field("token"))], &[]).await;
    good(&world.server, &["pause", "coder"]).await;
    within("the end of the stream with its session", live.wait()).await.unwrap();
}

#[tokio::test]
async fn nothing_of_a_page_comes_from_elsewhere_or_stays() {
    let world = World::start().await;
    first_person(&world.server).await;
    let (browser, _) = Browser::open(&link(&world.server).await).await;
    let host = browser.base.rsplit_once('/').unwrap().0.to_owned();
    let pages = [format!("{}/", browser.base), format!("{host}/sign-in?code=x"), format!("{host}/nothing")];
    let assets = ["css", "js"].map(|kind| format!("{host}/assets/console.{kind}"));
    for url in pages.iter().chain(&assets) {
        let seen = browser.curl(url, &["-D", "-", "-o", "/dev/null"]).await;
        let headers = seen.page.to_lowercase();
        let policy = "content-security-policy: default-src 'none'";
        for header in [policy, "nosniff", "referrer-policy: same-origin", "x-frame-options: deny"] {
            assert!(headers.contains(header), "{url}: {header}: {headers}");
        }
        assert!(assets.contains(url) || headers.contains("cache-control: no-store"), "{url}: {headers}");
    }
    let jar = std::fs::read_to_string(browser.home.path().join("jar")).unwrap();
    assert!(jar.contains("#HttpOnly_127.0.0.1"), "no script reads the cookie: {jar}");
}
