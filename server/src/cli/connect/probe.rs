//! Finds out which protocol an address speaks, before an API key goes there.
//!
//! HTTP/2 without TLS sends the first request, and with it the key, before it has heard from the other side. The probe
//! sends the greeting alone and waits for the reply.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The greeting of HTTP/2, followed by an empty SETTINGS frame.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The type of a SETTINGS frame, behind three bytes of length.
const SETTINGS: u8 = 4;
/// TLS records of the types alert and handshake.
const TLS_RECORDS: [u8; 2] = [0x15, 0x16];

/// What an address speaks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP/2 in the clear.
    Http2,
    Tls,
    Other,
}

/// Greets the address in the clear.
///
/// # Errors
/// It can't be reached, or does not reply within `patience`.
pub(super) async fn probe(host: &str, port: u16, patience: Duration) -> io::Result<Speaks> {
    let greeted = timeout(patience, async {
        let mut socket = TcpStream::connect((host, port)).await?;
        let mut reply = [0; 5];
        let replied = async {
            socket.write_all(GREETING).await?;
            socket.read_exact(&mut reply).await
        };
        // A server that hangs up on the greeting is there, but does not understand it.
        Ok(replied.await.map_or(Speaks::Other, |_| judge(reply)))
    });
    greeted.await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no reply in time")))
}

fn judge(reply: [u8; 5]) -> Speaks {
    match reply {
        [_, _, _, SETTINGS, _] if reply.first() == Some(&0) => Speaks::Http2,
        [record, 3, ..] if TLS_RECORDS.contains(&record) => Speaks::Tls,
        _ => Speaks::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_known_by_its_first_bytes() {
        assert_eq!(judge([0, 0, 18, 4, 0]), Speaks::Http2);
        assert_eq!(judge([0x15, 3, 3, 0, 2]), Speaks::Tls);
        assert_eq!(judge(*b"HTTP/"), Speaks::Other);
    }
}
