//! Logs, exec, attach and port-forward of a running pod.

use anyhow::{Context, Result, ensure};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, AttachedProcess, LogParams, PostParams, TerminalSize};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::world::{World, object, refused, same};

const POD: &str = "streams";

/// Serves its own page, and tells standard input back. Its log is three lines.
const SCRIPT: &str = r#"
echo page > /tmp/index.html; httpd -p 8080 -h /tmp
for n in 1 2 3; do echo line $n; done
while read -r line; do echo "heard $line"; done
"#;

pub async fn logs(world: &World) -> Result<()> {
    let pods: Api<Pod> = world.api();
    let pod: Pod = object(json!({
        "metadata": {"name": POD},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": world.image, "command": ["sh", "-c", SCRIPT], "stdin": true}],
        },
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    await_condition(pods.clone(), POD, conditions::is_pod_running()).await?;
    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let lines: Vec<String> = pods
        .log_stream(POD, &follow)
        .await?
        .lines()
        .take(3)
        .try_collect()
        .await?;
    same(lines, ["line 1", "line 2", "line 3"])?;
    let last = LogParams {
        tail_lines: Some(1),
        timestamps: true,
        ..LogParams::default()
    };
    let last = pods.logs(POD, &last).await?;
    let (stamp, line) = last.split_once(' ').context("no time before the line")?;
    ensure!(stamp.starts_with("20") && stamp.ends_with('Z'), "{last}");
    same(line, "line 3\n")?;
    let other = LogParams {
        container: Some("other".into()),
        ..LogParams::default()
    };
    refused(400, "BadRequest", pods.logs(POD, &other).await)?;
    Ok(())
}

async fn all(from: Option<impl tokio::io::AsyncRead + Unpin>) -> Result<String> {
    let mut text = String::new();
    from.context("the stream was not asked for")?
        .read_to_string(&mut text)
        .await?;
    Ok(text)
}

/// All that a process said, on both streams, and its exit code.
async fn ended(mut process: AttachedProcess) -> Result<(String, String, i32)> {
    let status = process.take_status().context("the status was taken")?;
    let (out, err) = tokio::try_join!(all(process.stdout()), all(process.stderr()))?;
    let status = status.await.context("it ended without a status")?;
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    let mut codes = causes
        .iter()
        .filter(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = codes.find_map(|cause| cause.message.as_ref()?.parse().ok());
    process.join().await?;
    let otherwise = if status.status.as_deref() == Some("Success") {
        0
    } else {
        -1
    };
    Ok((out, err, code.unwrap_or(otherwise)))
}

pub async fn exec(world: &World) -> Result<()> {
    let pods: Api<Pod> = world.api();
    let page = pods
        .exec(POD, ["cat", "/tmp/index.html"], &AttachParams::default())
        .await?;
    same(ended(page).await?, ("page\n".to_owned(), String::new(), 0))?;
    let mut talk = pods
        .exec(
            POD,
            ["sh", "-c", "read -r line; echo $line; echo wrong >&2; exit 3"],
            &AttachParams::default().stdin(true),
        )
        .await?;
    let mut stdin = talk.stdin().context("no standard input")?;
    stdin.write_all(b"to and fro\n").await?;
    same(ended(talk).await?, ("to and fro\n".to_owned(), "wrong\n".to_owned(), 3))?;

    let terminal = AttachParams::interactive_tty();
    let mut shell = pods.exec(POD, ["sh"], &terminal).await?;
    let mut sizes = shell.terminal_size().context("no sizes")?;
    sizes.try_send(TerminalSize { width: 123, height: 45 })?;
    let mut stdin = shell.stdin().context("no standard input")?;
    let mut stdout = BufReader::new(shell.stdout().context("no standard output")?);
    // The new size reaches the terminal a moment later.
    stdin
        .write_all(b"until stty size | grep '^45 123$'; do :; done; exit\n")
        .await?;
    let mut line = String::new();
    while line.trim_end() != "45 123" {
        line.clear();
        ensure!(
            stdout.read_line(&mut line).await? > 0,
            "the terminal never had the size"
        );
    }
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await?;
    shell.join().await?;
    Ok(())
}

pub async fn attach(world: &World) -> Result<()> {
    let pods: Api<Pod> = world.api();
    let mut process = pods.attach(POD, &AttachParams::default().stdin(true)).await?;
    let mut stdin = process.stdin().context("no standard input")?;
    stdin.write_all(b"you\n").await?;
    let mut lines = BufReader::new(process.stdout().context("no standard output")?).lines();
    same(lines.next_line().await?.as_deref(), Some("heard you"))?;
    process.abort();
    Ok(())
}

pub async fn forward(world: &World) -> Result<()> {
    let pods: Api<Pod> = world.api();
    let mut ports = pods.portforward(POD, &[8080, 9]).await?;
    let mut page = ports.take_stream(8080).context("no stream")?;
    page.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    page.read_to_string(&mut answer).await?;
    ensure!(
        answer.starts_with("HTTP/1.") && answer.ends_with("\r\n\r\npage\n"),
        "{answer}"
    );
    let error = ports.take_error(9).context("no errors")?.await;
    let error = error.context("a port that nobody listens on is open")?.to_lowercase();
    ensure!(error.contains("connection refused"), "{error}");
    drop(page);
    ports.abort();
    Ok(())
}
