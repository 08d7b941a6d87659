//! The kept output of a guest as a stream: the older part first, then, if asked, what is written from now on.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
};

/// Bytes of log on their way.
const BUFFER_BYTES: usize = 64 * 1024;
/// Between two looks for new output.
const INTERVAL: Duration = Duration::from_millis(200);

/// Streams the file `newest` after the one beside it with the suffix `.1`, from the last `tail_lines` lines on.
pub(super) fn log(newest: PathBuf, follow: bool, tail_lines: Option<u32>) -> DuplexStream {
    let (reader, mut writer) = tokio::io::duplex(BUFFER_BYTES);
    tokio::spawn(async move {
        let _ = send(&newest, follow, tail_lines, &mut writer).await;
        let _ = writer.shutdown().await;
    });
    reader
}

async fn send(
    newest: &Path,
    follow: bool,
    tail_lines: Option<u32>,
    writer: &mut DuplexStream,
) -> io::Result<()> {
    let mut older = newest.to_owned().into_os_string();
    older.push(".1");
    // Both parts are bounded by the shim that writes them.
    let mut kept = tokio::fs::read(PathBuf::from(older))
        .await
        .unwrap_or_default();
    let mut file = File::open(newest).await?;
    file.read_to_end(&mut kept).await?;
    let from = tail_lines.map_or(0, |lines| start_of_tail(&kept, lines));
    writer.write_all(&kept[from..]).await?;
    drop(kept);
    if follow {
        follow_from(newest, file, writer).await?;
    }
    Ok(())
}

/// Where the last `lines` lines begin. A last line without an end counts as one.
pub(super) fn start_of_tail(kept: &[u8], lines: u32) -> usize {
    let end = kept.strip_suffix(b"\n").unwrap_or(kept).len();
    let mut ends = (0..end).rev().filter(|at| kept[*at] == b'\n');
    match lines.checked_sub(1) {
        None => kept.len(),
        Some(before) => ends.nth(before as usize).map_or(0, |at| at + 1),
    }
}

/// Copies what is appended to a file, also after it was rotated away, until nobody reads any more.
async fn follow_from(path: &Path, mut file: File, writer: &mut DuplexStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES / 4];
    let mut opened = file.metadata().await?.ino();
    loop {
        drain(&mut file, &mut buffer, writer).await?;
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            // The reader never writes: this ends when he is gone.
            _ = writer.read_u8() => return Ok(()),
        }
        // Between the two steps of a rotation there is no file of that name.
        let now = tokio::fs::metadata(path).await.map(|now| now.ino());
        if now.is_ok_and(|now| now != opened) {
            // What was written to the old file up to then is read before the new one is taken up.
            drain(&mut file, &mut buffer, writer).await?;
            file = File::open(path).await?;
            opened = file.metadata().await?.ino();
        }
    }
}

async fn drain(file: &mut File, buffer: &mut [u8], writer: &mut DuplexStream) -> io::Result<()> {
    while let read @ 1.. = file.read(buffer).await? {
        writer.write_all(&buffer[..read]).await?;
    }
    Ok(())
}
