//! A plain HTTP question, as probes and scrapers ask it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::within;

/// Status code and body of one GET on the loopback; `None` if nobody answers.
pub async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    within("an answer over HTTP", stream.read_to_string(&mut text)).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
