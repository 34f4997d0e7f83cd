//! Plain HTTP requests to the daemons' listeners for probes and scrapers.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::within;

/// Status code and body of one GET on this machine; `None` if nobody answers.
pub async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    within("an answer over HTTP", stream.read_to_string(&mut answer)).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The lines of a configuration that open a page for scrapers at `port`.
pub fn telemetry(port: u16) -> String {
    format!("telemetry {{\n Prometheus {{\n host = \"127.0.0.1\"\n port = {port}\n }}\n}}\n")
}
