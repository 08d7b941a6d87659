//! `dagger image`.

use crate::args::{self, ImageAddArgs, ImageCommand};
use crate::context::{Connection, Context, Uploader};
use crate::failure::{Done, Exit, Failure};
use crate::output::{self, Listing};
use dagger_client::http::Client;
use dagger_client::keys::KeyKind;
use dagger_client::size;
use dagger_ledger::{
    Action, Blob, Boot, Digest, DirectBoot, DiskBoot, DiskFormat, Firmware, ImageManifest,
    ImageName, ImagePublish, ImageShare,
};
use futures_util::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 1 << 20;

pub async fn run(context: &Context, command: ImageCommand) -> Done {
    match command {
        ImageCommand::Add(args) => add(context, args).await,
        ImageCommand::List => list(context).await,
        ImageCommand::Show { image } => show(context, &image).await,
        ImageCommand::Share {
            image,
            accounts,
            revoke,
        } => share(context, image, accounts, revoke).await,
        ImageCommand::Retire { image } => retire(context, image).await,
    }
}

async fn list(context: &Context) -> Done {
    let images = context.connect().await?.client.images().await?;
    if context.json() {
        return output::json(&images);
    }
    let columns = ["NAME", "ARCH", "BOOT", ">SIZE", ">COPIES", "DIGEST", ""];
    let mut listing = Listing::new(
        &columns,
        "no images yet; publish one with `dagger image add`",
    );
    for image in images {
        listing.row([
            image.name,
            image.arch,
            image.boot,
            size::bytes(image.size_bytes),
            image.replicas.len().to_string(),
            output::short(&image.digest),
            if image.retired {
                "retired".to_owned()
            } else {
                String::new()
            },
        ]);
    }
    listing.print()
}

async fn show(context: &Context, image: &str) -> Done {
    let connection = context.connect().await?;
    let (account, name) = context.qualify(&connection, image).await?;
    output::json(&connection.client.image(&account, &name).await?)
}

async fn share(context: &Context, image: String, accounts: Vec<String>, revoke: bool) -> Done {
    let key = context.key(KeyKind::Account)?;
    let connection = context.connect().await?;
    let named = accounts.join(", ");
    let (said, with, without) = if revoke {
        let said = format!("image {image} is no longer shared with {named}; VMs made from it stay");
        (said, Vec::new(), accounts)
    } else {
        (
            format!("image {image} is shared with {named}"),
            accounts,
            Vec::new(),
        )
    };
    let action = Action::ImageShare(ImageShare {
        image,
        with,
        without,
    });
    let status = context.execute(&connection, &key, action).await?;
    match context.json() {
        true => output::json(&status),
        false => output::line(&said),
    }
}

async fn retire(context: &Context, image: String) -> Done {
    let key = context.key(KeyKind::Account)?;
    let connection = context.connect().await?;
    let said = format!("image {image} is retired: VMs made from it stay, no new ones are made");
    let status = context
        .execute(&connection, &key, Action::ImageRetire(ImageName { image }))
        .await?;
    match context.json() {
        true => output::json(&status),
        false => output::line(&said),
    }
}

/// A file of an image, with its address.
struct Part {
    path: PathBuf,
    blob: Blob,
}

async fn add(context: &Context, args: ImageAddArgs) -> Done {
    let connection = context.connect().await?;
    let (key, account) = context.account(&connection).await?;
    let parts = measure_all(&args)?;
    let manifest = ImageManifest {
        arch: args.arch.into(),
        boot: boot(&args, &parts),
    };
    let uploader = Uploader {
        account: &account.name,
        key: &key,
        chain: connection.chain,
    };
    upload_copies(context, &connection, &uploader, &parts, args.copies.into()).await?;
    let digest = manifest.digest();
    let action = Action::ImagePublish(ImagePublish {
        image: args.name.clone(),
        manifest,
        private: args.private,
    });
    context.execute(&connection, &key, action).await?;
    if context.json() {
        return output::json(&connection.client.image(&account.name, &args.name).await?);
    }
    output::line(&format!(
        "image {}/{} is published, digest {digest}",
        account.name, args.name
    ))
}

/// Measures the files in the order that [`boot`] takes them in.
fn measure_all(args: &ImageAddArgs) -> Done<Vec<Part>> {
    let files = [&args.kernel, &args.initrd, &args.disk];
    files
        .into_iter()
        .flatten()
        .map(|path| measure(path))
        .collect()
}

fn measure(path: &Path) -> Done<Part> {
    let failed = |error: &dyn std::fmt::Display| Failure::file(path.display(), error);
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let size_bytes = file.metadata().map_err(|error| failed(&error))?.len();
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(|error| failed(&error))?;
    if size_bytes == 0 || hasher.count() != size_bytes {
        return Err(failed(&"it is empty, or changes while it is read"));
    }
    let digest = Digest(*hasher.finalize().as_bytes());
    Ok(Part {
        path: path.to_owned(),
        blob: Blob { digest, size_bytes },
    })
}

fn boot(args: &ImageAddArgs, parts: &[Part]) -> Boot {
    if args.disk.is_none() {
        return Boot::Direct(DirectBoot {
            kernel: parts[0].blob,
            initrd: parts.get(1).map(|part| part.blob),
            cmdline: args.cmdline.clone().unwrap_or_default(),
        });
    }
    Boot::Disk(DiskBoot {
        blob: parts[0].blob,
        format: match args.format {
            Some(args::DiskFormat::Qcow2) => DiskFormat::Qcow2,
            Some(args::DiskFormat::Raw) | None => DiskFormat::Raw,
        },
        firmware: match args.firmware {
            args::Firmware::Bios => Firmware::Bios,
            args::Firmware::Uefi => Firmware::Uefi,
        },
    })
}

/// Uploads to the connected node and, for further copies, to others that answer.
async fn upload_copies(
    context: &Context,
    connection: &Connection,
    uploader: &Uploader<'_>,
    parts: &[Part],
    copies: usize,
) -> Done {
    let others = context
        .clients()?
        .iter()
        .filter(|client| client.api() != connection.client.api());
    let mut made = 0;
    for client in std::iter::once(&connection.client).chain(others) {
        if made == copies {
            break;
        }
        match upload_parts(context, client, uploader, parts).await {
            Ok(()) => made += 1,
            // The first node has just answered; only a further one may be passed over.
            Err(failure) if made > 0 && failure.exit == Exit::Unreachable => {}
            Err(failure) => return Err(failure),
        }
    }
    if made < copies && !context.json() {
        eprintln!(
            "note: {made} of {copies} copies made; name more nodes with --api to keep the image when one is lost"
        );
    }
    Ok(())
}

async fn upload_parts(
    context: &Context,
    client: &Client,
    uploader: &Uploader<'_>,
    parts: &[Part],
) -> Done {
    for part in parts {
        if !client.has_blob(&part.blob.digest.to_hex()).await? {
            upload(context, client, uploader, part).await?;
        }
    }
    Ok(())
}

async fn upload(context: &Context, client: &Client, uploader: &Uploader<'_>, part: &Part) -> Done {
    let name = part
        .path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let bar = progress_bar(
        context,
        part.blob.size_bytes,
        format!("{name} → {}", client.api()),
    );
    let token = uploader.token()?;
    let file = tokio::fs::File::open(&part.path)
        .await
        .map_err(|e| Failure::file(part.path.display(), &e))?;
    let counter = bar.clone();
    let bytes = tokio_util::io::ReaderStream::with_capacity(file, CHUNK_BYTES)
        .inspect_ok(move |chunk| counter.inc(chunk.len() as u64));
    let stored = client
        .upload((uploader.account, &token), part.blob.size_bytes, bytes)
        .await;
    bar.finish_and_clear();
    let stored = stored?;
    if stored.digest != part.blob.digest.to_hex() {
        return Err(Failure::new(
            Exit::Failure,
            "image_digest_mismatch",
            format!("{} stored other bytes than were sent for {name}", client.api()),
        )
        .hint("nothing was published; see that the file does not change meanwhile, or upload to another node"));
    }
    if !context.json() {
        output::line(&format!(
            "uploaded {name} ({}) to {}",
            size::bytes(stored.size_bytes),
            client.api()
        ))?;
    }
    Ok(())
}

fn progress_bar(context: &Context, size_bytes: u64, name: String) -> ProgressBar {
    if context.json() {
        return ProgressBar::hidden();
    }
    let style = "{msg}  {wide_bar}  {bytes}/{total_bytes}  {bytes_per_sec}  {eta}";
    let bar = ProgressBar::new(size_bytes).with_message(name);
    bar.set_style(ProgressStyle::with_template(style).expect("the template is well-formed"));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
