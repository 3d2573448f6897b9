//! Runs a program to its end, with a limit, so that nothing a test starts can hang it.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// What a program said. `Err` if it could not be started, was too slow, or ended with anything but success: the whole
/// story for a person, its standard error included.
pub(crate) fn run(command: &mut Command, input: Option<&str>, limit: Duration) -> Result<String, String> {
    let shown = shown(command);
    let output = output(command, input, limit)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{shown}`: {}\n{stdout}{stderr}", output.status))
}

/// How a program ended and what it said. `Err` if it could not be started or was too slow: then it is killed, and so is
/// what it started where it leads a process group.
pub fn output(command: &mut Command, input: Option<&str>, limit: Duration) -> Result<Output, String> {
    let shown = shown(command);
    command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| format!("`{shown}` cannot be started: {error}"))?;
    let pid = child.id();
    let input = child.stdin.take().zip(input.map(str::to_owned));
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        if let Some((mut pipe, text)) = input {
            // A program that reads nothing of it says why itself.
            let _ = pipe.write_all(text.as_bytes());
        }
        let _ = tell.send(child.wait_with_output());
    });
    match told.recv_timeout(limit) {
        Ok(output) => output.map_err(|error| format!("`{shown}`: {error}")),
        Err(_) => {
            kill_group(pid);
            kill(pid);
            Err(format!("`{shown}` took longer than {limit:?}"))
        }
    }
}

/// `kill -9`.
pub(crate) fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
}

/// `kill -9` of a process that leads a group, and of all in it. Of no group of that id, nothing happens.
pub fn kill_group(leader: u32) {
    let mut kill = Command::new("kill");
    let _ = kill
        .args(["-9", "--", &format!("-{leader}")])
        .stderr(Stdio::null())
        .status();
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
