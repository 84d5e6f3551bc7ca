//! Docker, or podman where there is no docker: takes an image.
//!
//! It is given a docker-archive, the one form that every version of both reads, through a pipe. Left out: running
//! containers, and pushing; neither is needed here.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::Context as _;
use serde_json::json;
use tar::Header;

use crate::fault::Fault;
use crate::image::Digest;
use crate::image::hashing::Hashing;

/// In the order in which they are tried.
const PROGRAMS: [&str; 2] = ["docker", "podman"];

/// An image on its way into docker.
pub struct Archive<'a> {
    pub config: &'a [u8],
    pub layers: Vec<Layer<'a>>,
    /// The `NAME:TAG` that it is to have; without one, docker knows it by its id alone.
    pub name: Option<&'a str>,
}

pub struct Layer<'a> {
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The bytes that it takes where it lies.
    pub size: u64,
    /// Gives the uncompressed tar.
    pub open: Box<dyn Fn() -> anyhow::Result<Box<dyn Read>> + 'a>,
}

/// Loads an image, and names the program that took it. `done` gets [`Layer::size`] after each layer.
pub fn load(image: &Archive<'_>, done: &dyn Fn(u64)) -> anyhow::Result<&'static str> {
    for program in PROGRAMS {
        let spawned = Command::new(program)
            .arg("load")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match spawned {
            Ok(child) => return feed(program, child, image, done).map(|()| program),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(program),
        }
    }
    Err(Fault::usage("neither docker nor podman is on PATH").help("install one of them").into())
}

fn feed(program: &str, mut child: Child, image: &Archive<'_>, done: &dyn Fn(u64)) -> anyhow::Result<()> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let listener = std::thread::spawn(move || {
        let mut said = Vec::new();
        stderr.map(|mut stderr| stderr.read_to_end(&mut said));
        String::from_utf8_lossy(&said).trim().to_owned()
    });
    let written = stdin.context("a pipe").and_then(|stdin| write(image, stdin, done));
    let status = child.wait()?;
    let said = listener.join().unwrap_or_default();
    match written {
        Err(error) if !is_broken_pipe(&error) => Err(error),
        _ if !status.success() => Err(refusal(program, status, &said).into()),
        written => written,
    }
}

fn refusal(program: &str, status: std::process::ExitStatus, said: &str) -> Fault {
    let last = said.lines().last().unwrap_or("it said nothing");
    let message = format!("{program} load failed ({status}): {last}");
    // Both say so in words only.
    if ["cannot connect", "permission denied"].iter().any(|sign| said.to_lowercase().contains(sign)) {
        return Fault::usage(message).help(format!("is {program} running, and may you use it?"));
    }
    Fault::remote(message).help("see that it runs and has room, and run the same command again")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    kinds.map(io::Error::kind).any(|kind| kind == io::ErrorKind::BrokenPipe)
}

/// The layers as `DIFF_ID/layer.tar`, the config, and `manifest.json` last: what ends before it is taken for no image.
fn write(image: &Archive<'_>, stdin: ChildStdin, done: &dyn Fn(u64)) -> anyhow::Result<()> {
    let mut tar = tar::Builder::new(BufWriter::with_capacity(1 << 16, stdin));
    let mut names = Vec::new();
    for layer in &image.layers {
        let (file, size) = checked(layer)?;
        let name = format!("{}/layer.tar", layer.diff_id.hex());
        tar.append_data(&mut header(size), &name, file)?;
        names.push(name);
        done(layer.size);
    }
    let config = format!("{}.json", Digest::of(image.config).hex());
    let tags: Vec<_> = image.name.into_iter().collect();
    let manifest = json!([{ "Config": config, "RepoTags": tags, "Layers": names }]).to_string();
    for (name, bytes) in [(config.as_str(), image.config), ("manifest.json", manifest.as_bytes())] {
        tar.append_data(&mut header(bytes.len() as u64), Path::new(name), bytes)?;
    }
    Ok(tar.into_inner()?.flush()?)
}

/// A layer's tar in an unnamed file: its length stands before it in the archive, and docker gets no byte of a wrong one.
fn checked(layer: &Layer<'_>) -> anyhow::Result<(File, u64)> {
    let file = tempfile::tempfile().context("a temporary file for a layer")?;
    let mut hashing = Hashing::new(BufWriter::new(file));
    io::copy(&mut (layer.open)()?, &mut hashing)
        .map_err(|error| error.downcast::<Fault>().map_or_else(anyhow::Error::from, Into::into))
        .with_context(|| format!("layer {}", layer.diff_id.short()))?;
    let (writer, found, size) = hashing.finish();
    if found != layer.diff_id {
        let message = format!("layer {} has the digest {found} when unpacked", layer.diff_id);
        return Err(Fault::refused(message).help("push the image again").into());
    }
    let mut file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok((file, size))
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(size);
    header
}
