//! The runtime's own streaming server: `exec` and `attach` over SPDY, a stream each for input, outputs, sizes and the
//! closing `Status` (`v4.channel.k8s.io`), as kubectl speaks it.
//!
//! Not over its WebSockets: in the library that containerd and CRI-O share they cannot end standard input, and take a
//! terminal without input for one that hung up, whose output is dropped.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use client::node::{ExecRequest, SESSION_BUFFER, Session, TerminalSize};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use model::{BoxError, Failure};
use serde_json::{Value, json};
use spdy::{Client, Headers, Stream};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

const PROTOCOL: &str = "v4.channel.k8s.io";
/// For the streaming server to answer and to take the streams. It runs in the runtime's own process, on this machine.
const OPENING: Duration = Duration::from_secs(30);
/// A `Status`, or the page of a refusal, is shorter.
const SENTENCE: usize = 16 << 10;

/// `url` is what the CRI's `Exec` or `Attach` answered to `asked`: a one-time address on this machine.
pub(super) async fn session(url: &str, asked: &ExecRequest) -> Result<Session, Failure> {
    let lost =
        |why: &dyn std::fmt::Display| Failure::Internal(format!("the runtime's streaming server at {url}: {why}"));
    let opening = tokio::time::timeout(OPENING, open(url, asked)).await;
    let streams = opening.map_err(|_| lost(&"no answer"))?.map_err(|why| lost(&why))?;
    let (stdin, input) = mpsc::channel(SESSION_BUFFER);
    let (out, stdout) = mpsc::channel(SESSION_BUFFER);
    let (err, stderr) = mpsc::channel(SESSION_BUFFER);
    let (resize, sizes) = mpsc::channel(4);
    let (mut told, exit) = oneshot::channel();
    let tty = asked.tty;
    tokio::spawn(async move {
        let Streams {
            error,
            stdin,
            stdout,
            stderr,
            resize,
            // Kept until the end: with it go the streams.
            client: _client,
        } = streams;
        let inward = async {
            tokio::join!(feed(input, stdin, tty), resized(sizes, resize));
            // The input may end long before the command.
            std::future::pending::<Infallible>().await
        };
        let outward = async {
            let (status, (), ()) = tokio::join!(sentence(error), pass(stdout, out), pass(stderr, err));
            exit_code(&status)
        };
        let exit = tokio::select! {
            // The session was dropped.
            () = told.closed() => return,
            exit = outward => exit,
            never = inward => match never {},
        };
        let _ = told.send(exit);
    });
    Ok(Session {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    })
}

/// Those that were asked for; the error stream is there always.
struct Streams {
    client: Client,
    error: Stream,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

/// The command starts when the server has as many streams as were asked for, so there must be neither more nor fewer.
async fn open(url: &str, asked: &ExecRequest) -> Result<Streams, BoxError> {
    let mut client = Client::start(upgraded(url).await?)?;
    let error = client.open(of("error")).await?;
    let [mut stdin, mut stdout, mut stderr, mut resize] = [const { None }; 4];
    for (kind, wanted, stream) in [
        ("stdin", asked.stdin, &mut stdin),
        ("stdout", asked.stdout, &mut stdout),
        ("stderr", asked.stderr, &mut stderr),
        ("resize", asked.tty, &mut resize),
    ] {
        if wanted {
            *stream = Some(client.open(of(kind)).await?);
        }
    }
    Ok(Streams {
        client,
        error,
        stdin,
        stdout,
        stderr,
        resize,
    })
}

fn of(kind: &str) -> Headers {
    Headers::from([("streamtype", kind)])
}

async fn upgraded(url: &str) -> Result<TokioIo<Upgraded>, BoxError> {
    let uri: Uri = url.parse()?;
    if uri.scheme_str() != Some("http") {
        return Err(
            "it is not served over plain HTTP: turn off TLS for streams in the runtime's configuration \
                    (enable_tls_streaming, stream_enable_tls)"
                .into(),
        );
    }
    let authority = uri.authority().ok_or("it names no host")?;
    let stream = match authority.port() {
        Some(_) => TcpStream::connect(authority.as_str()).await?,
        None => TcpStream::connect((authority.host(), 80)).await?,
    };
    // What is typed goes out at once.
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::post(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, spdy::UPGRADE)
        .header(spdy::INSIDE, PROTOCOL)
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = Limited::new(answer.into_body(), SENTENCE).collect().await?.to_bytes();
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim()).into());
    }
    if answer
        .headers()
        .get(spdy::INSIDE)
        .is_none_or(|chosen| chosen != PROTOCOL)
    {
        return Err(format!("it does not speak {PROTOCOL}").into());
    }
    Ok(TokioIo::new(hyper::upgrade::on(answer).await?))
}

/// Ends the command's input with the session's. Not a terminal's: containerd takes that end for one that hung up and drops
/// the output; what ends the input of a terminal is typed (^D).
async fn feed(mut from: mpsc::Receiver<Bytes>, stdin: Option<Stream>, tty: bool) {
    let Some(stdin) = stdin else { return };
    while let Some(bytes) = from.recv().await {
        if stdin.output.send(bytes).await.is_err() {
            return;
        }
    }
    if !tty {
        let _ = stdin.output.finish().await;
    }
}

async fn resized(mut from: mpsc::Receiver<TerminalSize>, resize: Option<Stream>) {
    let Some(resize) = resize else { return };
    while let Some(TerminalSize { width, height }) = from.recv().await {
        let size = json!({"Width": width, "Height": height}).to_string();
        if resize.output.send(size.into()).await.is_err() {
            return;
        }
    }
}

/// One output to its end; at once that of one that was not asked for.
async fn pass(from: Option<Stream>, to: mpsc::Sender<Bytes>) {
    let Some(mut from) = from else { return };
    while let Some(bytes) = from.input.recv().await {
        if to.send(bytes).await.is_err() {
            return;
        }
    }
}

/// All that the error stream says.
async fn sentence(mut error: Stream) -> Vec<u8> {
    let mut said = Vec::new();
    while let Some(bytes) = error.input.recv().await {
        let room = SENTENCE - said.len();
        said.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
    said
}

/// From the `Status`: success, an exit code among its causes, or a failure to run.
fn exit_code(status: &[u8]) -> Result<i32, Failure> {
    if status.is_empty() {
        return Err(Failure::Internal("the command was lost".into()));
    }
    let status: Value = serde_json::from_slice(status).map_err(Failure::internal)?;
    if status["status"] == "Success" {
        return Ok(0);
    }
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let code = causes
        .filter(|c| c["reason"] == "ExitCode")
        .find_map(|c| c["message"].as_str()?.parse().ok());
    code.ok_or_else(|| Failure::Internal(status["message"].as_str().unwrap_or("the command failed").to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use spdy::Server;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc::error::TryRecvError;
    use tokio::task::JoinHandle;

    use super::*;

    /// Long enough for a slow machine; nothing here takes any time.
    const LIMIT: Duration = Duration::from_secs(60);

    /// A streaming server of one address: upgrades one request, takes `streams` of them and serves them.
    async fn runtime<T, F>(
        streams: usize,
        serve: impl FnOnce(Server, BTreeMap<String, Stream>) -> F + Send + 'static,
    ) -> (String, JoinHandle<T>)
    where
        T: Send + 'static,
        F: Future<Output = T> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/exec/token", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let (mut wire, _) = listener.accept().await.unwrap();
            let head = head(&mut wire).await;
            assert!(head.starts_with("POST /exec/token HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("upgrade: SPDY/3.1\r\n"), "{head}");
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                          X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
            wire.write_all(answer.as_bytes()).await.unwrap();
            let mut server = Server::start(wire).unwrap();
            let mut all = BTreeMap::new();
            while all.len() < streams {
                let stream = server.accept().await.unwrap();
                all.insert(stream.headers.get("streamtype").to_owned(), stream);
            }
            serve(server, all).await
        });
        (url, serving)
    }

    async fn head(wire: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(wire.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    async fn end(stream: &Stream, last: impl Into<Bytes>) {
        stream.output.send(last.into()).await.unwrap();
        stream.output.finish().await.unwrap();
    }

    async fn all(mut from: mpsc::Receiver<Bytes>) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(bytes) = from.recv().await {
            all.extend_from_slice(&bytes);
        }
        all
    }

    #[tokio::test]
    async fn a_command_reads_to_the_end_of_its_input() {
        let (url, serving) = runtime(4, async |_server, mut streams: BTreeMap<String, Stream>| {
            let mut stdin = streams.remove("stdin").unwrap();
            let mut read = 0;
            // As `cat` does.
            while let Some(bytes) = stdin.input.recv().await {
                read += bytes.len();
                streams["stdout"].output.send(bytes).await.unwrap();
            }
            end(&streams["stdout"], "").await;
            end(&streams["stderr"], format!("{read} bytes")).await;
            let status = json!({"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}});
            end(&streams["error"], status.to_string()).await;
        })
        .await;
        let asked = ExecRequest {
            stdin: true,
            stdout: true,
            stderr: true,
            ..ExecRequest::default()
        };
        let session = session(&url, &asked).await.unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
        let say = async {
            for part in sent.chunks(100_000) {
                session.stdin.send(Bytes::copy_from_slice(part)).await.unwrap();
            }
            drop(session.stdin);
        };
        let ((), out, err) = tokio::join!(say, all(session.stdout), all(session.stderr));
        assert!(out == sent, "{} bytes came back", out.len());
        assert_eq!(err, b"3000000 bytes");
        assert_eq!(session.exit.await.unwrap().unwrap(), 3);
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_terminal_is_sized_and_does_not_hang_up() {
        let (url, serving) = runtime(4, async |_server, mut streams: BTreeMap<String, Stream>| {
            assert_eq!(
                streams.keys().collect::<Vec<_>>(),
                ["error", "resize", "stdin", "stdout"]
            );
            let [mut stdin, mut resize] = ["stdin", "resize"].map(|name| streams.remove(name).unwrap());
            assert_eq!(stdin.input.recv().await.unwrap(), "typed");
            for _ in 0..2 {
                let size: Value = serde_json::from_slice(&resize.input.recv().await.unwrap()).unwrap();
                assert_eq!(size, json!({"Width": 80, "Height": 24}));
                streams["stdout"].output.send("sized".into()).await.unwrap();
            }
            let input = stdin.input.try_recv();
            end(&streams["stdout"], "").await;
            end(&streams["error"], r#"{"status":"Success"}"#).await;
            input
        })
        .await;
        let asked = ExecRequest {
            stdin: true,
            stdout: true,
            tty: true,
            ..ExecRequest::default()
        };
        let mut session = session(&url, &asked).await.unwrap();
        session.stdin.send("typed".into()).await.unwrap();
        drop(session.stdin);
        // When the second one is answered, an end of the input would have arrived before it.
        for _ in 0..2 {
            session
                .resize
                .send(TerminalSize { width: 80, height: 24 })
                .await
                .unwrap();
            assert_eq!(session.stdout.recv().await.unwrap(), "sized");
        }
        assert_eq!(session.exit.await.unwrap().unwrap(), 0);
        assert_eq!(serving.await.unwrap(), Err(TryRecvError::Empty));
    }

    #[tokio::test]
    async fn a_terminal_without_input_has_no_stream_for_it() {
        let (url, serving) = runtime(3, async |_server, streams: BTreeMap<String, Stream>| {
            assert_eq!(streams.keys().collect::<Vec<_>>(), ["error", "resize", "stdout"]);
            end(&streams["stdout"], "shown").await;
            end(&streams["error"], r#"{"status":"Success"}"#).await;
        })
        .await;
        let asked = ExecRequest {
            stdout: true,
            tty: true,
            ..ExecRequest::default()
        };
        let session = session(&url, &asked).await.unwrap();
        assert_eq!(all(session.stdout).await, b"shown");
        assert_eq!(all(session.stderr).await, b"");
        assert_eq!(session.exit.await.unwrap().unwrap(), 0);
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn who_drops_the_session_leaves_the_runtime() {
        let (url, serving) = runtime(2, async |server: Server, _streams| server.closed().await).await;
        let asked = ExecRequest {
            stdout: true,
            ..ExecRequest::default()
        };
        drop(session(&url, &asked).await.unwrap());
        tokio::time::timeout(LIMIT, serving).await.expect("it is told").unwrap();
    }

    #[tokio::test]
    async fn a_runtime_that_leaves_has_lost_the_command() {
        let (url, serving) = runtime(2, async |_server, _streams| {}).await;
        let asked = ExecRequest {
            stdout: true,
            ..ExecRequest::default()
        };
        let session = session(&url, &asked).await.unwrap();
        serving.await.unwrap();
        assert_eq!(all(session.stdout).await, b"");
        let why = session.exit.await.unwrap().unwrap_err();
        assert!(why.to_string().contains("the command was lost"), "{why}");
    }

    #[tokio::test]
    async fn refusals_are_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            for answer in [
                "HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\nno such token",
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n",
            ] {
                let (mut wire, _) = listener.accept().await.unwrap();
                head(&mut wire).await;
                wire.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        for (scheme, wanted) in [
            ("http", "404 Not Found: no such token"),
            ("http", "it does not speak v4.channel.k8s.io"),
            ("https", "turn off TLS"),
        ] {
            let refused = session(&format!("{scheme}://{address}/exec/x"), &ExecRequest::default()).await;
            let why = refused.map(drop).unwrap_err().to_string();
            assert!(why.contains(wanted), "{why}");
        }
        serving.await.unwrap();
    }

    #[test]
    fn statuses_tell_exit_codes() {
        let failed =
            br#"{"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with non-zero exit code",
            "details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        assert_eq!(exit_code(failed).unwrap(), 3);
        assert_eq!(exit_code(br#"{"status":"Success"}"#).unwrap(), 0);
        assert!(exit_code(br#"{"status":"Failure","message":"no such file"}"#).is_err());
        assert!(exit_code(b"").is_err());
    }
}
