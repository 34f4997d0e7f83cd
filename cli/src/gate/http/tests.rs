//! The HTTP gate in front of a real upstream that counts, with a caller that writes its own bytes.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use avouch_domain::CallResult;
use avouch_rules::{HttpMethod, Limits, Param, ParamKind, Template, Upstream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use zeroize::Zeroizing;

use super::body::{Body, BodyError, whole};
use super::{Api, Door, Held, Route, Secret, serve};
use crate::gate::{Ask, Decided, Decider, Did, Due, GateEvent, Happened, Judge, Verdict};

const SECRET: &str = "s3cret-text";

fn route(method: HttpMethod, path: &str, resource: &str, params: &[(&str, ParamKind)]) -> Route {
    Route {
        method,
        path: Template::parse(path).unwrap(),
        resource: format!("api/{resource}"),
        action: if method.reads() { "http.read" } else { "http.write" }.to_owned(),
        params: params.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
        query: ["state".to_owned()].into(),
        other_query: false,
        rows_at: String::new(),
    }
}

pub(super) fn api(upstream: &str) -> Api {
    let value = Zeroizing::new(SECRET.to_owned());
    Api {
        name: "api".to_owned(),
        upstream: Upstream::parse(upstream).unwrap(),
        env_var: "API_URL".to_owned(),
        ca: None,
        secret: Secret::Held(Held { header: "x-api-key".to_owned(), prefix: String::new(), value }),
        routes: vec![
            route(
                HttpMethod::Get,
                "/tickets/{id}",
                "ticket",
                &[("id", ParamKind::Long), ("state", ParamKind::String)],
            ),
            route(HttpMethod::Post, "/tickets", "new", &[]),
            route(HttpMethod::Get, "/rows", "rows", &[]),
            route(HttpMethod::Get, "/lines", "lines", &[]),
            route(HttpMethod::Get, "/text", "text", &[]),
            route(HttpMethod::Get, "/echo", "echo", &[]),
            route(HttpMethod::Get, "/told", "told", &[]),
            route(HttpMethod::Get, "/stream", "stream", &[]),
            route(HttpMethod::Get, "/gone", "gone", &[]),
            route(HttpMethod::Get, "/broken", "broken", &[]),
        ],
    }
}

/// What reached the upstream: a line for each request with its headers, and its body.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

struct Kit {
    url: String,
    port: u16,
    path: String,
    socket: PathBuf,
    seen: Seen,
    decider: Arc<Fixed>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<std::io::Result<()>>,
    /// Pieces of the streamed answer.
    pieces: mpsc::Sender<Bytes>,
    _folder: tempfile::TempDir,
}

/// Decides everything alike.
struct Fixed {
    verdict: Verdict,
    asked: Mutex<Vec<Ask>>,
    noted: Mutex<Vec<GateEvent>>,
    did: Mutex<Vec<Did>>,
    closed: bool,
}

impl Judge for Fixed {
    async fn decide(&self, ask: Ask) -> Decided {
        self.asked.lock().push(ask);
        let due = (self.verdict == Verdict::Agreed).then_some(Due { record: 7, agreed: true });
        Decided { verdict: self.verdict.clone(), due }
    }

    async fn note(&self, event: GateEvent) {
        self.noted.lock().push(event);
    }

    fn did(&self, did: Did) {
        self.did.lock().push(did);
    }
}

impl Decider for Fixed {
    async fn admit(&self, _connection: &UnixStream) -> Result<(), String> {
        if self.closed { Err("this process is none of the run".to_owned()) } else { Ok(()) }
    }

    async fn may(&self, resources: Vec<String>) -> Vec<bool> {
        vec![true; resources.len()]
    }
}

async fn upstream(seen: Seen, pieces: mpsc::Receiver<Bytes>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let pieces = Arc::new(Mutex::new(Some(pieces)));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (seen, pieces) = (seen.clone(), pieces.clone());
            let service = service_fn(move |request| {
                let (seen, pieces) = (seen.clone(), pieces.clone());
                async move { Ok::<_, Infallible>(said(request, seen, pieces).await) }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    port
}

async fn said(
    request: Request<Incoming>,
    seen: Seen,
    pieces: Arc<Mutex<Option<mpsc::Receiver<Bytes>>>>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut head = format!("{} {}", parts.method, parts.uri);
    for (name, value) in &parts.headers {
        head.push_str(&format!("\n{name}: {}", value.to_str().unwrap()));
    }
    seen.lock().push((head, String::from_utf8(body.to_vec()).unwrap()));
    let (kind, text) = match parts.uri.path() {
        "/rows" => ("application/json", r#"[{"a":1,"b":2},{"a":3,"b":4},{"a":5,"b":6}]"#.to_owned()),
        "/lines" => ("application/x-ndjson", "{\"a\":1,\"b\":2}\n{\"a\":3}\n".to_owned()),
        "/told" => ("application/json", format!("{{\"you sent\":\"{SECRET}\"}}")),
        "/stream" => {
            let pieces = pieces.lock().take().unwrap();
            let frames = tokio_stream::StreamExt::map(ReceiverStream::new(pieces), |piece| {
                Ok::<_, BodyError>(Frame::data(piece))
            });
            return Response::new(StreamBody::new(frames).boxed_unsync());
        }
        "/gone" => {
            let mut response = Response::new(whole("{\"error\":\"no such ticket\"}"));
            *response.status_mut() = hyper::StatusCode::NOT_FOUND;
            return response;
        }
        "/text" => ("text/plain", "plain".to_owned()),
        _ => ("application/json", "{\"done\":true}".to_owned()),
    };
    let mut response = Response::builder().header("content-type", kind).header("set-cookie", "s=1");
    if parts.uri.path() == "/echo" {
        response = response.header("x-echo", format!("key {SECRET}"));
    }
    response.body(whole(text)).unwrap()
}

async fn kit_with(verdict: Verdict, closed: bool, change: impl FnOnce(&mut Api)) -> Kit {
    let folder = tempfile::tempdir().unwrap();
    let seen = Seen::default();
    let (pieces, streamed) = mpsc::channel(4);
    let port = upstream(seen.clone(), streamed).await;
    let mut api = api(&format!("http://127.0.0.1:{port}"));
    change(&mut api);
    let socket = folder.path().join("http.sock");
    let door = Door::open(Arc::new(api), socket.clone()).unwrap();
    let [(_, url), (_, told)] = door.variables();
    assert_eq!(told, socket.to_str().unwrap());
    let (port, path) = url.strip_prefix("http://127.0.0.1:").unwrap().split_once('/').unwrap();
    let (port, path) = (port.parse().unwrap(), format!("/{path}"));
    let (asked, noted, did) = (Mutex::default(), Mutex::default(), Mutex::default());
    let decider = Arc::new(Fixed { verdict, asked, noted, did, closed });
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = decider.clone();
    let served = tokio::spawn(async move {
        serve(vec![door], serving, async {
            let _ = stopped.await;
        })
        .await
    });
    Kit { url, port, path, socket, seen, decider, stop: Some(stop), served, pieces, _folder: folder }
}

async fn kit(verdict: Verdict) -> Kit {
    kit_with(verdict, false, |_| {}).await
}

impl Kit {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// Sends these lines behind the first, with the key before the path, and gives all that comes back.
    async fn send(&self, method: &str, path: &str, more: &str, body: &str) -> String {
        let path = format!("{}{path}", self.path);
        self.send_raw(&format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n{body}"
        ))
        .await
    }

    async fn send_raw(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        String::from_utf8_lossy(&said).into_owned()
    }

    async fn get(&self, path: &str) -> String {
        self.send("GET", path, "", "").await
    }

    async fn post(&self, body: &str) -> String {
        let more = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        self.send("POST", "/tickets", &more, body).await
    }

    fn count(&self) -> usize {
        self.seen.lock().len()
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn limits(text: &str) -> Verdict {
    Verdict::Limit(Limits::parse(text).unwrap())
}

#[tokio::test]
async fn an_allowed_request_reaches_the_upstream_as_it_was_decided_and_with_the_secret() {
    let kit = kit(Verdict::Allow).await;
    let answer = kit.send("GET", "/tickets/%37?state=op%65n", "x-api-key: mine\r\ncookie: a=b\r\n", "").await;
    assert_eq!((status(&answer), body(&answer)), ("200", "{\"done\":true}"), "{answer}");
    assert!(!answer.contains("set-cookie"), "{answer}");
    let (head, _) = kit.seen.lock()[0].clone();
    assert!(head.starts_with("GET /tickets/7?state=open\n"), "{head}");
    assert!(
        head.contains("x-api-key: s3cret-text") && !head.contains("mine") && !head.contains("cookie"),
        "{head}"
    );
    let ask = kit.decider.asked.lock()[0].clone();
    assert_eq!((ask.action.as_ref(), ask.resource.as_str()), ("http.read", "api/ticket"));
    assert_eq!(
        (&ask.params["id"], &ask.params["state"]),
        (&Param::Long(7), &Param::String("open".to_owned()))
    );
    assert!(!kit.url.contains(SECRET));
}

#[tokio::test]
async fn head_is_a_get_and_connections_are_used_again() {
    let kit = kit(Verdict::Allow).await;
    let mut stream = kit.connect().await;
    for method in ["HEAD", "GET", "GET"] {
        let request = format!("{method} {}/tickets/7 HTTP/1.1\r\nhost: x\r\n\r\n", kit.path);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut said = String::new();
        while !said.contains(if method == "HEAD" { "\r\n\r\n" } else { "{\"done\":true}" }) {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).await.unwrap();
            assert_ne!(count, 0, "{said}");
            said.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        assert_eq!(status(&said), "200");
    }
    let seen: Vec<_> =
        kit.seen.lock().iter().map(|(head, _)| head.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(seen, ["HEAD", "GET", "GET"]);
}

#[tokio::test]
async fn what_no_route_stands_for_is_denied_noted_and_never_asked_or_sent() {
    let kit = kit(Verdict::Allow).await;
    for (method, path) in
        [("GET", "/payroll"), ("DELETE", "/tickets/7"), ("POST", "/tickets/"), ("TRACE", "/tickets/7")]
    {
        let answer = kit.send(method, path, "", "").await;
        assert_eq!(status(&answer), "403", "{answer}");
        assert!(
            answer.contains("x-avouch-reason: unmapped") && body(&answer).contains("\"next\":"),
            "{answer}"
        );
    }
    assert_eq!((kit.count(), kit.decider.asked.lock().len()), (0, 0));
    let noted = kit.decider.noted.lock();
    let resource = "api/\"DELETE /tickets/7\"".to_owned();
    assert_eq!(noted[1].what, Happened::UnknownRoute { action: "http.write", resource });
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_and_never_asked_or_sent() {
    let kit = kit(Verdict::Allow).await;
    for path in [
        "/tickets/../rows",
        "/tickets/%2e%2e/rows",
        "/tickets//7",
        "/tickets/a%2fb",
        "/tickets/%00",
        "/tickets/7%",
        "/tickets/x",
        "/tickets/7;x",
        "/tickets/7?page=2",
        "/tickets/7?state=a&state=b",
        "/tickets/7\\x",
    ] {
        let answer = kit.get(path).await;
        assert_eq!(status(&answer), "400", "{path}: {answer}");
    }
    let upgrade = kit.send("GET", "/tickets/7", "upgrade: websocket\r\n", "").await;
    let bodied = kit.send("GET", "/tickets/7", "content-length: 1\r\n", "x").await;
    let absolute = kit
        .send_raw("GET http://other.example.org/tickets/7 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    let connect =
        kit.send_raw("CONNECT other.example.org:443 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    for answer in [&upgrade, &bodied] {
        assert_eq!(status(answer), "400", "{answer}");
    }
    for answer in [&absolute, &connect] {
        assert!(["400", "403"].contains(&status(answer)), "{answer}");
    }
    assert_eq!((kit.count(), kit.decider.asked.lock().len()), (0, 0));
}

#[tokio::test]
async fn a_refusal_says_why_and_what_to_do_next_and_nothing_is_sent() {
    let text = "no rule allows it; next: `avouch rules show`".to_owned();
    for (verdict, code, reason, told) in [
        (Verdict::Deny { reason: "no_rule".to_owned(), text }, "403", "no_rule", "`avouch rules show`"),
        (Verdict::Ask { text: "it needs a yes".to_owned() }, "403", "ask", "`avouch ask list`"),
        (
            Verdict::Unavailable { text: "nobody is there".to_owned() },
            "503",
            "unavailable",
            "try again later",
        ),
        (limits("ttl=5"), "403", "limit", "can't end what it has let through"),
    ] {
        let kit = kit(verdict).await;
        let answer = kit.get("/tickets/7").await;
        assert_eq!(status(&answer), code, "{answer}");
        assert!(answer.contains(&format!("x-avouch-reason: {reason}")) && answer.contains(told), "{answer}");
        assert_eq!(kit.count(), 0);
    }
    let kit = kit(limits("read_only")).await;
    let answer = kit.post("{}").await;
    assert!(status(&answer) == "403" && answer.contains("POST changes something"), "{answer}");
    assert_eq!(kit.count(), 0);
    assert_eq!(status(&kit.get("/tickets/7").await), "200");
}

#[tokio::test]
async fn what_a_person_agreed_to_is_sent_byte_for_byte_and_nothing_beside_it() {
    let kit = kit(Verdict::Agreed).await;
    let body = "{\"title\": \"caf\u{e9}\",\n \"n\": 1.0}";
    let more = format!("x-hidden: 1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
    assert_eq!(status(&kit.send("POST", "/tickets", &more, body).await), "200");
    let (head, sent) = kit.seen.lock()[0].clone();
    assert_eq!(sent, body);
    assert!(head.contains("content-type: application/json") && !head.contains("x-hidden"), "{head}");
    let shown: serde_json::Value = serde_json::from_str(&kit.decider.asked.lock()[0].shown).unwrap();
    let url = format!("http://{}/tickets", head.split("host: ").nth(1).unwrap().lines().next().unwrap());
    assert_eq!(
        shown,
        serde_json::json!({"method": "POST", "url": url, "type": "application/json", "body": body})
    );
}

#[tokio::test]
async fn a_receipt_tells_what_went_to_the_upstream_in_the_form_that_was_shown() {
    let kit = kit(Verdict::Agreed).await;
    for body in ["{\"n\": 1.0}", "{\"n\": 2}"] {
        assert_eq!(status(&kit.post(body).await), "200");
        let did = kit.decider.did.lock().pop().unwrap();
        let shown = kit.decider.asked.lock().pop().unwrap().shown;
        assert_eq!((did.record, did.result, did.status), (7, CallResult::Answered, 200));
        assert_eq!(
            (did.action.as_str(), did.resource.as_str(), &did.sent),
            ("http.write", "api/new", &shown)
        );
        assert!(did.sent.contains(&serde_json::json!(body).to_string()), "{}", did.sent);
    }
    let read = kit.send("GET", "/tickets/7?state=a", "content-type: text/plain\r\n", "").await;
    assert_eq!(status(&read), "200");
    let did = kit.decider.did.lock().pop().unwrap();
    assert_eq!(did.sent, kit.decider.asked.lock().pop().unwrap().shown, "what reads has no type");
    assert_eq!(did.params["id"], Param::Long(7));
}

#[tokio::test]
async fn a_receipt_says_that_nothing_was_sent_and_an_ordinary_request_has_none() {
    let nowhere = kit_with(Verdict::Agreed, false, |api| {
        api.upstream = Upstream::parse("unix:/no/such/socket").unwrap();
    })
    .await;
    assert_eq!(status(&nowhere.post("{}").await), "502");
    let did = nowhere.decider.did.lock().pop().unwrap();
    assert_eq!((did.result, did.sent.as_str()), (CallResult::Failed, ""));
    let plain = kit(Verdict::Allow).await;
    assert_eq!(status(&plain.post("{}").await), "200");
    assert!(plain.decider.did.lock().is_empty());
}

#[tokio::test]
async fn what_nobody_could_read_is_shown_to_nobody_and_goes_on_as_it_comes() {
    let kit = kit(Verdict::Allow).await;
    let big = "x".repeat(300 * 1024);
    assert_eq!(status(&kit.post(&big).await), "200");
    let chunked = "transfer-encoding: chunked\r\n";
    assert_eq!(status(&kit.send("POST", "/tickets", chunked, "5\r\nhello\r\n0\r\n\r\n").await), "200");
    let seen = kit.seen.lock().clone();
    assert_eq!((seen[0].1.len(), seen[1].1.as_str()), (big.len(), "hello"));
    let shown: Vec<_> = kit.decider.asked.lock().iter().map(|ask| ask.shown.clone()).collect();
    assert!(shown[0].is_empty() && shown[1].contains("hello"));
    let more = format!("content-length: {}\r\n", crate::gate::limits::HTTP_BODY_MAX + 1);
    assert_eq!(status(&kit.send("POST", "/tickets", &more, "").await), "413");
}

#[tokio::test]
async fn rows_and_fields_are_held_and_what_has_none_is_refused_whole() {
    let kit = kit(limits("max_rows=2;fields=a")).await;
    let rows = kit.get("/rows").await;
    assert_eq!((status(&rows), body(&rows)), ("200", "[{\"a\":1},{\"a\":3}]"), "{rows}");
    assert!(rows.contains("x-avouch-limits: max_rows=2;fields=a") && !rows.contains("set-cookie"), "{rows}");
    assert_eq!(body(&kit.get("/lines").await), "{\"a\":1}\n{\"a\":3}\n");
    let text = kit.get("/text").await;
    assert!(
        status(&text) == "502"
            && text.contains("rows are taken from JSON and NDJSON")
            && !text.contains("plain\n")
    );
    let gone = kit.get("/gone").await;
    assert!(status(&gone) == "404" && !gone.contains("no such ticket"), "{gone}");
}

#[tokio::test]
async fn an_answer_that_is_too_big_is_refused_whole() {
    let small = kit(limits("max_bytes=43")).await;
    assert_eq!(status(&small.get("/rows").await), "200");
    let smaller = kit(limits("max_bytes=42")).await;
    let answer = smaller.get("/rows").await;
    assert!(
        status(&answer) == "502" && answer.contains("more than 42 bytes") && !answer.contains("\"a\":1"),
        "{answer}"
    );
    // Bytes are those that are shown.
    let both = kit(limits("max_rows=1;fields=a;max_bytes=9")).await;
    assert_eq!(body(&both.get("/rows").await), "[{\"a\":1}]");
    let less = kit(limits("max_rows=1;fields=a;max_bytes=8")).await;
    assert!(less.get("/rows").await.contains("it has 9 bytes"));
}

#[tokio::test]
async fn an_answer_that_tells_the_secret_is_not_let_through() {
    for verdict in [Verdict::Allow, limits("max_rows=9")] {
        let kit = kit(verdict).await;
        let header = kit.get("/echo").await;
        assert!(status(&header) == "502" && !header.contains(SECRET), "{header}");
        let body = kit.get("/told").await;
        assert!(status(&body) == "502" && !body.contains(SECRET), "{body}");
    }
    // Also not in pieces; and what only begins like it comes.
    let kit = kit(Verdict::Allow).await;
    let mut stream = kit.connect().await;
    stream
        .write_all(format!("GET {}/stream HTTP/1.1\r\nhost: x\r\n\r\n", kit.path).as_bytes())
        .await
        .unwrap();
    for piece in ["one s3c", "ond s3cr", "et-te", "xt end"] {
        kit.pieces.send(Bytes::from_static(piece.as_bytes())).await.unwrap();
    }
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("one ") && said.contains("s3cond ") && !said.contains("s3cr"), "{said}");
}

#[tokio::test]
async fn an_answer_comes_as_it_is_said_and_a_stop_ends_it() {
    let mut kit = kit(Verdict::Allow).await;
    let mut stream = kit.connect().await;
    stream
        .write_all(format!("GET {}/stream HTTP/1.1\r\nhost: x\r\n\r\n", kit.path).as_bytes())
        .await
        .unwrap();
    kit.pieces.send(Bytes::from_static(b"first")).await.unwrap();
    let mut said = String::new();
    while !said.contains("first") {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).await.unwrap();
        assert_ne!(count, 0, "{said}");
        said.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    kit.stop.take().unwrap().send(()).unwrap();
    (&mut kit.served).await.unwrap().unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(
        !String::from_utf8_lossy(&rest).contains("0\r\n\r\n"),
        "it does not look as if it had ended by itself"
    );
    assert!(TcpStream::connect(("127.0.0.1", kit.port)).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn without_the_key_of_this_run_and_for_strangers_there_is_no_gate() {
    let kit = kit_with(Verdict::Allow, true, |_| {}).await;
    let other = "/".to_owned() + &"0".repeat(kit.path.len() - 1);
    for path in ["", "/", &other, &kit.path[..kit.path.len() - 1]] {
        let answer = kit
            .send_raw(&format!("GET {path}/tickets/7 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
            .await;
        assert!(status(&answer) == "403" && answer.contains("x-avouch-reason: key"), "{path}: {answer}");
    }
    let mut stream = UnixStream::connect(&kit.socket).await.unwrap();
    stream.write_all(b"GET /tickets/7 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert!(status(&said) == "403" && said.contains("this process is none of the run"), "{said}");
    assert_eq!((kit.count(), kit.decider.asked.lock().len()), (0, 0));
}

#[tokio::test]
async fn a_known_caller_needs_no_key_on_the_socket() {
    let kit = kit(Verdict::Allow).await;
    let mut stream = UnixStream::connect(&kit.socket).await.unwrap();
    stream.write_all(b"GET /tickets/7 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!((status(&said), kit.count()), ("200", 1), "{said}");
}

#[tokio::test]
async fn without_its_secret_or_its_upstream_a_gate_lets_nothing_through_and_says_so() {
    let missing = kit_with(Verdict::Allow, false, |api| {
        api.secret = Secret::Missing("token has mode 644: `chmod 600 token`".to_owned());
    });
    let missing = missing.await;
    let answer = missing.get("/tickets/7").await;
    assert!(status(&answer) == "503" && answer.contains("`chmod 600 token`"), "{answer}");
    assert_eq!((missing.count(), missing.decider.asked.lock().len()), (0, 0));
    let nowhere = kit_with(Verdict::Allow, false, |api| {
        api.upstream = Upstream::parse("unix:/nonexistent/api.sock").unwrap();
    });
    let answer = nowhere.await.get("/tickets/7").await;
    assert!(status(&answer) == "502" && answer.contains("can't be reached"), "{answer}");
    assert!(answer.contains("nothing has been sent"), "{answer}");
}

#[tokio::test]
async fn a_connection_that_ended_while_nobody_used_it_is_not_told() {
    let served = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let counted = served.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4096];
            let _ = stream.read(&mut bytes).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let kit = kit_with(Verdict::Allow, false, |api| {
        api.upstream = Upstream::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    });
    let kit = kit.await;
    for n in 1..=3 {
        let answer = kit.get("/tickets/7").await;
        assert_eq!((status(&answer), served.load(Ordering::SeqCst)), ("200", n), "{answer}");
    }
}
