//! Both ends against each other, and each against a peer that lies or does not listen.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{sleep, timeout};

use crate::headers::{Deflate, Inflate};
use crate::{CHUNK, Client, FAREWELL, Gone, Headers, NotOpened, QUEUE, Server, Stream};

/// An hour of a clock that stands still while anything can be done.
const LONG: Duration = Duration::from_secs(3600);

fn of(kind: &str) -> Headers {
    Headers::from([("streamType", kind)])
}

fn both(buffer: usize) -> (Client, Server) {
    let (near, far) = tokio::io::duplex(buffer);
    (Client::start(near).unwrap(), Server::start(far).unwrap())
}

/// A stream from both sides, the client's first.
async fn opened(client: &mut Client, server: &mut Server, kind: &str) -> (Stream, Stream) {
    let (ours, theirs) = tokio::join!(client.open(of(kind)), server.accept());
    (ours.unwrap(), theirs.unwrap())
}

async fn all(stream: &mut Stream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.input.recv().await {
        all.extend_from_slice(&chunk);
    }
    all
}

/// A control frame: type, flags, and what follows.
fn control(kind: u8, flags: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut frame = vec![0x80, 3, 0, kind];
    frame.extend_from_slice(&((u32::from(flags) << 24) | body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&body);
    frame
}

fn syn(deflate: &mut Deflate, id: u32, headers: Headers) -> Vec<u8> {
    control(1, 0, &[&id.to_be_bytes(), &[0; 6], &deflate.block(&headers).unwrap()])
}

fn reply(deflate: &mut Deflate, id: u32) -> Vec<u8> {
    control(2, 0, &[&id.to_be_bytes(), &deflate.block(&Headers::default()).unwrap()])
}

fn reset(id: u32, status: u32) -> Vec<u8> {
    control(3, 0, &[&id.to_be_bytes(), &status.to_be_bytes()])
}

fn data(id: u32, bytes: &[u8], fin: bool) -> Vec<u8> {
    let mut frame = id.to_be_bytes().to_vec();
    frame.extend_from_slice(&((u32::from(fin) << 24) | bytes.len() as u32).to_be_bytes());
    frame.extend_from_slice(bytes);
    frame
}

/// The next control frame: its type, and what follows.
async fn hear(wire: &mut DuplexStream) -> (u8, Vec<u8>) {
    let head = wire.read_u32().await.unwrap();
    assert_eq!(head & 0xffff_0000, 0x8003_0000);
    let mut body = vec![0; wire.read_u32().await.unwrap() as usize];
    wire.read_exact(&mut body).await.unwrap();
    (head as u8, body)
}

#[tokio::test]
async fn one_side_ends_and_the_other_goes_on() {
    let (mut client, mut server) = both(1 << 10);
    let (mut ours, mut theirs) = opened(&mut client, &mut server, "data").await;
    let (mut quiet, quiet_there) = opened(&mut client, &mut server, "error").await;
    assert_eq!((ours.id, quiet.id), (theirs.id, quiet_there.id));
    let kinds = [&theirs, &quiet_there].map(|stream| stream.headers.get("streamtype"));
    assert_eq!(kinds, ["data", "error"]);
    ours.output.send("question".into()).await.unwrap();
    ours.output.finish().await.unwrap();
    assert_eq!(all(&mut theirs).await, b"question");
    // Only the one side of the one stream has ended.
    for part in ["an ", "answer"] {
        theirs.output.send(part.into()).await.unwrap();
    }
    theirs.output.finish().await.unwrap();
    assert_eq!(all(&mut ours).await, b"an answer");
    quiet_there.output.send("still here".into()).await.unwrap();
    assert_eq!(quiet.input.recv().await.unwrap(), "still here");
    drop(server);
    drop((theirs, quiet_there));
    assert_eq!(quiet.input.recv().await, None);
    assert_eq!(client.open(of("data")).await.unwrap_err(), NotOpened::Gone(Gone));
}

/// More than fits into everything between the two ends, in both directions at once and on two streams.
#[tokio::test]
async fn large_transfers_arrive_whole_and_in_order() {
    let (mut client, mut server) = both(1 << 10);
    let mut pairs = Vec::new();
    for kind in ["one", "two"] {
        pairs.push(opened(&mut client, &mut server, kind).await);
    }
    let sent: Vec<u8> = (0..6_000_000u32).map(|n| (n / 251) as u8).collect();
    let sent = Bytes::from(sent);
    let talks = pairs.into_iter().map(|(mut ours, mut theirs)| {
        let sent = sent.clone();
        tokio::spawn(async move {
            let say = async {
                // Larger than a chunk, and no multiple of it.
                for at in (0..sent.len()).step_by(CHUNK * 3 + 7) {
                    let part = sent.slice(at..sent.len().min(at + CHUNK * 3 + 7));
                    ours.output.send(part).await.unwrap();
                }
                ours.output.finish().await.unwrap();
            };
            let echo = async {
                while let Some(chunk) = theirs.input.recv().await {
                    assert!(chunk.len() <= CHUNK);
                    theirs.output.send(chunk).await.unwrap();
                }
                theirs.output.finish().await.unwrap();
            };
            let mut back = Vec::new();
            let hear = async {
                while let Some(chunk) = ours.input.recv().await {
                    back.extend_from_slice(&chunk);
                }
            };
            tokio::join!(say, echo, hear);
            assert!(back == sent, "{} bytes came back", back.len());
        })
    });
    for talk in talks.collect::<Vec<_>>() {
        talk.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_holds_up_the_sender() {
    let (mut client, mut server) = both(CHUNK);
    let (ours, mut theirs) = opened(&mut client, &mut server, "data").await;
    let mut sent = 0;
    while timeout(LONG, ours.output.send(Bytes::from(vec![1; CHUNK])))
        .await
        .is_ok()
    {
        sent += 1;
    }
    // The stream's queue, the wire's, and what is on its way between them.
    assert!((2 * QUEUE..2 * QUEUE + 8).contains(&sent), "{sent} chunks are kept");
    let hear = async {
        for _ in 0..sent {
            assert_eq!(theirs.input.recv().await.unwrap().len(), CHUNK);
        }
    };
    timeout(LONG, hear).await.expect("all that was taken arrives");
}

/// The far end of the wire neither reads nor leaves.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_left_in_the_end() {
    let (near, mut far) = tokio::io::duplex(1 << 10);
    let mut client = Client::start(near).unwrap();
    far.write_all(&reply(&mut Deflate::new().unwrap(), 1)).await.unwrap();
    let stream = client.open(of("data")).await.unwrap();
    let full = async { while stream.output.send(Bytes::from(vec![1; CHUNK])).await.is_ok() {} };
    assert!(timeout(LONG, full).await.is_err());
    let left = tokio::time::Instant::now();
    drop((client, stream));
    // Nobody reads this: once the near end is dropped it cannot be written either.
    let gone = async {
        while far.write_all(b"?").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(LONG, gone).await.expect("the wire is dropped");
    assert!(left.elapsed() < FAREWELL * 2, "after {:?}", left.elapsed());
}

#[tokio::test]
async fn a_server_may_refuse_a_stream_and_gets_none_of_its_own() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let mut client = Client::start(near).unwrap();
    let (mut inflate, mut deflate) = (Inflate::new(), Deflate::new().unwrap());
    let serve = async {
        for (id, answer) in [(1u32, reset(1, 3)), (3, reply(&mut deflate, 3))] {
            let (kind, body) = hear(&mut far).await;
            assert_eq!((kind, &body[..4]), (1, &id.to_be_bytes()[..]));
            assert_eq!(inflate.block(&body[10..]).unwrap().get("streamtype"), "data");
            far.write_all(&answer).await.unwrap();
        }
        // Its own stream; then what it says on ours is heard all the same.
        let push = [syn(&mut deflate, 2, of("push")), data(3, b"answer", true)].concat();
        far.write_all(&push).await.unwrap();
        assert_eq!(hear(&mut far).await, (3, reset(2, 3)[8..].to_vec()));
    };
    let ask = async {
        assert_eq!(client.open(of("data")).await.unwrap_err(), NotOpened::Refused);
        let mut stream = client.open(of("data")).await.unwrap();
        assert_eq!(all(&mut stream).await, b"answer");
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn a_stream_is_answered_read_and_written() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let mut server = Server::start(server).unwrap();
    let mut deflate = Deflate::new().unwrap();
    let opening = syn(&mut deflate, 1, Headers::from([("streamType", "data"), ("port", "80")]));
    client.write_all(&opening).await.unwrap();
    // Larger than a chunk: it arrives in several.
    let sent = vec![7; CHUNK * 2 + 5];
    client.write_all(&data(1, &sent, true)).await.unwrap();
    let mut stream = server.accept().await.unwrap();
    assert_eq!(
        (stream.id, stream.headers.get("streamtype"), stream.headers.get("port")),
        (1, "data", "80")
    );
    assert_eq!(all(&mut stream).await, sent);
    stream.output.send(Bytes::from_static(b"answer")).await.unwrap();
    stream.output.finish().await.unwrap();

    let (kind, body) = hear(&mut client).await;
    assert_eq!((kind, &body[..4]), (2, &[0, 0, 0, 1][..]), "SYN_REPLY");
    assert_eq!(Inflate::new().block(&body[4..]).unwrap(), Headers::default());
    let mut answer = vec![0; 14 + 8];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [data(1, b"answer", false), data(1, b"", true)].concat());
}

#[tokio::test]
async fn pings_come_back_and_wrong_ids_are_reset() {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let mut server = Server::start(server).unwrap();
    let mut deflate = Deflate::new().unwrap();
    client.write_all(&control(6, 0, &[&[0, 0, 0, 9]])).await.unwrap();
    assert_eq!(hear(&mut client).await, (6, vec![0, 0, 0, 9]));
    for (id, answer) in [(2, 3), (5, 2), (5, 3), (3, 3)] {
        client
            .write_all(&syn(&mut deflate, id, Headers::default()))
            .await
            .unwrap();
        let (kind, body) = hear(&mut client).await;
        assert_eq!((kind, &body[..4]), (answer, &id.to_be_bytes()[..]), "{id}");
    }
    assert_eq!(server.accept().await.unwrap().id, 5);
    drop(client);
    assert!(server.accept().await.is_none());
    server.closed().await;
}

/// What is about no stream there is changes nothing for those there are.
#[tokio::test]
async fn frames_of_unknown_streams_are_passed_over() {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut client = Client::start(near).unwrap();
    let mut deflate = Deflate::new().unwrap();
    let lies = [
        data(1, b"before it is there", true),
        data(99, &vec![1; CHUNK * 2 + 1], false),
        data(0, b"", true),
        reply(&mut deflate, 99),
        reset(99, 1),
        control(8, 1, &[&99u32.to_be_bytes(), &deflate.block(&of("late")).unwrap()]),
        // SETTINGS, WINDOW_UPDATE, and a type that no draft has.
        control(4, 0, &[&[0; 4]]),
        control(9, 0, &[&[0, 0, 0, 1], &[0x7f, 0xff, 0xff, 0xff]]),
        control(77, 255, &[b"anything"]),
        control(6, 0, &[&[0, 0, 0, 1]]),
    ];
    for lie in &lies {
        far.write_all(lie).await.unwrap();
    }
    // All of that is read before the first stream is opened.
    assert_eq!(hear(&mut far).await, (6, vec![0, 0, 0, 1]));
    let serve = async {
        hear(&mut far).await;
        // Twice is once, and what comes after the end is dropped.
        for frame in [
            reply(&mut deflate, 1),
            reply(&mut deflate, 1),
            data(1, b"all", true),
            data(1, b"more", true),
        ] {
            far.write_all(&frame).await.unwrap();
        }
    };
    let ask = async {
        let mut stream = client.open(of("data")).await.unwrap();
        assert_eq!(all(&mut stream).await, b"all");
    };
    tokio::join!(serve, ask);
}

/// Both ends give up on what is no SPDY, cannot be inflated, or never comes.
#[tokio::test]
async fn rubbish_ends_the_connection() {
    let id = 1u32.to_be_bytes();
    for rubbish in [
        &b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n"[..],
        // Version 2; a control frame of 16 MiB; ones that are cut within; blocks that are none.
        &[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9],
        &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff],
        &control(1, 0, &[&id, &[0; 3]]),
        &control(1, 0, &[&id, &[0; 6], b"no deflate at all"]),
        &control(2, 0, &[&id, b"no deflate at all"]),
        &control(3, 0, &[&[0, 0]]),
        &control(6, 0, &[]),
        &control(8, 0, &[&id[..2]]),
        // Data of which the rest never comes.
        &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff, 1, 2, 3],
    ] {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut server = Server::start(near).unwrap();
        far.write_all(rubbish).await.unwrap();
        // What is missing never comes. (The connection may be over already.)
        let _: io::Result<()> = far.shutdown().await;
        assert!(server.accept().await.is_none(), "{rubbish:?}");
        server.closed().await;

        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut client = Client::start(near).unwrap();
        far.write_all(rubbish).await.unwrap();
        let _: io::Result<()> = far.shutdown().await;
        assert_eq!(
            client.open(of("data")).await.unwrap_err(),
            NotOpened::Gone(Gone),
            "{rubbish:?}"
        );
    }
}
