//! Whose connection it is: the kernel knows of each socket on this machine which user opened it.
//!
//! Never a guess: of a connection that the kernel does not list, nothing is known.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;

/// The state of a connection that is open, as the kernel writes it.
const ESTABLISHED: &str = "01";

/// The user who opened the other end, which is on this machine.
pub(crate) async fn owner_of(stream: &TcpStream) -> Option<u32> {
    let (theirs, ours) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
    let table = if theirs.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(table)).await;
    owner_in(&read.ok()?.ok()?, theirs, ours)
}

/// The owner of the socket at `theirs` that is connected to `ours`, in a table of the kernel.
fn owner_in(table: &str, theirs: SocketAddr, ours: SocketAddr) -> Option<u32> {
    let (theirs, ours) = (written(theirs), written(ours));
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let found = fields.next()? == theirs && fields.next()? == ours && fields.next()? == ESTABLISHED;
        // Behind the state: queues, timer, retransmissions.
        found.then(|| fields.nth(3)?.parse().ok()).flatten()
    })
}

/// An address as the kernel writes it: each four bytes as a number of this machine.
fn written(address: SocketAddr) -> String {
    let bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = bytes.chunks_exact(4).map(|four| {
        let four = <[u8; 4]>::try_from(four).unwrap_or_default();
        format!("{:08X}", u32::from_ne_bytes(four))
    });
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_kernel_names_the_user_at_the_other_end() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address).await else {
                println!("not run: {address} can't be bound");
                continue;
            };
            let _theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (ours, _) = listener.accept().await.unwrap();
            let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
            assert_eq!(owner_of(&ours).await, Some(me), "{address}");
        }
    }

    #[test]
    fn the_other_end_is_told_from_this_one_and_from_what_has_ended() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F9A 0100007F:D431 01 00000000:00000000 00:00000000 00000000     7        0 1\n\
             1: 0100007F:D431 0100007F:1F9A 06 00000000:00000000 00:00000000 00000000     8        0 2\n\
             2: 0100007F:D431 0100007F:1F9A 01 00000000:00000000 00:00000000 00000000  1001        0 3\n";
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(owner_in(table, address(0xD431), address(0x1F9A)), Some(1001));
        assert_eq!(owner_in(table, address(0xD432), address(0x1F9A)), None);
    }
}
