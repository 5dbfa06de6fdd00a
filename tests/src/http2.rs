//! The bytes of HTTP/2, for callers that break the rules.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The first bytes that a client sends.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
pub const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// An HTTP/2 frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The headers of a call, in HPACK without any compression.
pub fn headers(path: &str) -> Vec<u8> {
    headers_with(path, &[])
}

fn headers_with(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    for (name, value) in fields.iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A connection on which calls begin and nothing else happens, as that of a client that froze.
#[derive(Debug)]
pub struct Frozen {
    socket: TcpStream,
    stream: u32,
}

impl Frozen {
    /// Greets the server, and takes no byte of any response.
    pub async fn greet(address: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(address).await.expect("the vault accepts");
        let no_window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
        socket.write_all(&[PREFACE, &no_window].concat()).await.expect("the vault listens");
        Self { socket, stream: 1 }
    }

    /// Begins a call, with its message if there is one, and returns when the vault knows of it.
    pub async fn call(&mut self, path: &str, authorization: &str, message: Option<&[u8]>) {
        let fields = headers_with(path, &[("authorization", authorization)]);
        let mut bytes = frame(1, 4, self.stream, &fields);
        if let Some(message) = message {
            let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
            bytes.extend(frame(0, 1, self.stream, &[&[0], &length[..], message].concat()));
        }
        self.stream += 2;
        // The frames of a connection are handled in order, so the reply to a ping says that the call has arrived.
        bytes.extend(frame(6, 0, 0, b"arrived?"));
        self.socket.write_all(&bytes).await.expect("the vault listens");
        loop {
            let mut header = [0; 9];
            self.socket.read_exact(&mut header).await.expect("the vault answers a ping");
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; usize::try_from(length).expect("a frame is small")];
            self.socket.read_exact(&mut payload).await.expect("a whole frame");
            if header[3] == 6 && payload == b"arrived?" {
                return;
            }
        }
    }
}
