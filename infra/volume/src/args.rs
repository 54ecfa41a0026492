//! The command line: which bucket, from where, shown where.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Parser;

/// Shows a bucket as a read-only directory until it is unmounted or SIGTERM comes.
#[derive(Debug, Parser)]
#[command(name = "volume", no_binary_name = true)]
pub(crate) struct Args {
    /// Name of the bucket.
    #[arg(long, value_name = "BUCKET")]
    pub(crate) bucket: String,
    /// Where Cloud Storage answers; without it, Google's own address.
    #[arg(long, value_name = "URL")]
    pub(crate) storage_endpoint: Option<String>,
    /// A directory to mount on, or /dev/fd/N: an open descriptor of /dev/fuse that is mounted already.
    #[arg(value_name = "MOUNTPOINT", value_parser = place)]
    pub(crate) mountpoint: Place,
}

/// Where the volume is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Directory(PathBuf),
    Descriptor(RawFd),
}

fn place(text: &str) -> Result<Place, String> {
    match text.strip_prefix("/dev/fd/") {
        None => Ok(Place::Directory(text.into())),
        Some(number) => number.parse().map(Place::Descriptor).map_err(|_| format!("/dev/fd/{number} is no descriptor")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Args, String> {
        Args::try_parse_from(args.split(' ')).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_descriptor_is_told_from_a_directory() {
        let args = parse("--bucket b /dev/fd/7").expect("it parses");
        assert_eq!((args.bucket.as_str(), args.storage_endpoint, args.mountpoint), ("b", None, Place::Descriptor(7)));
        let args = parse("--bucket b --storage-endpoint http://127.0.0.1:1 /mnt").expect("it parses");
        assert_eq!(args.mountpoint, Place::Directory("/mnt".into()));
        let refusal = parse("--bucket b /dev/fd/seven").expect_err("no number");
        assert!(refusal.contains("/dev/fd/seven is no descriptor"), "{refusal}");
    }
}
