//! Who is compared: a plain HTTP client, the volume, and rclone, each reading the same things.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::world::{BUCKET, Mount, Serving, World, is_mounted};
use crate::{FILES, LARGE};

/// Bytes and operations a second.
pub(crate) trait Reader {
    /// The large file from end to end; bytes a second.
    fn sequential(&mut self) -> f64;
    /// 4 KiB at each place; operations a second.
    fn random(&mut self, places: &[u64]) -> f64;
    /// All files of a folder, each read whole; files a second. Whoever has directories lists this one first.
    fn small(&mut self, folder: &str, count: usize) -> f64;
}

pub(crate) fn small_name(folder: &str, number: usize) -> String {
    format!("{folder}/{number:05}")
}

pub(crate) fn small_size(number: usize) -> usize {
    4096 + number * 7919 % (60 * 1024)
}

fn rate(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

/// One connection, one request after another.
pub(crate) struct Get {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    url: String,
    token: String,
}

impl Get {
    pub(crate) fn new(endpoint: &str, token: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let url = format!("{endpoint}/storage/v1/b/{BUCKET}/o/");
        Self { runtime, client: reqwest::Client::new(), url, token: token.to_owned() }
    }

    fn get(&self, name: &str, range: Option<u64>) -> usize {
        let url = format!("{}{}?alt=media", self.url, name.replace('/', "%2F"));
        let mut request = self.client.get(url).bearer_auth(&self.token);
        if let Some(at) = range {
            request = request.header("range", format!("bytes={at}-{}", at + 4095));
        }
        self.runtime.block_on(async {
            let mut response = request.send().await.expect("an answer").error_for_status().expect("a good one");
            let mut got = 0;
            while let Some(chunk) = response.chunk().await.expect("a body") {
                got += chunk.len();
            }
            got
        })
    }
}

impl Reader for Get {
    fn sequential(&mut self) -> f64 {
        let began = Instant::now();
        assert_eq!(self.get("large", None), LARGE);
        rate(LARGE, began)
    }

    fn random(&mut self, places: &[u64]) -> f64 {
        let began = Instant::now();
        for place in places {
            assert_eq!(self.get("large", Some(*place)), 4096);
        }
        rate(places.len(), began)
    }

    fn small(&mut self, folder: &str, count: usize) -> f64 {
        let began = Instant::now();
        for number in 0..count {
            assert_eq!(self.get(&small_name(folder, number), None), small_size(number));
        }
        rate(count, began)
    }
}

/// A directory, however it is mounted; fresh, so that nothing is in the kernel's cache.
pub(crate) struct Mounted {
    root: PathBuf,
    _end: Ends,
}

enum Ends {
    Volume { _at: Mount, _process: Serving },
    Rclone { _mount: Rclone },
}

struct Rclone {
    at: tempfile::TempDir,
    process: Child,
}

impl Drop for Rclone {
    fn drop(&mut self) {
        rustix::mount::unmount(self.at.path(), rustix::mount::UnmountFlags::DETACH).expect("it is mounted");
        self.process.wait().expect("it ends once it is unmounted");
    }
}

impl Mounted {
    pub(crate) fn volume(world: &World, endpoint: &str) -> Self {
        let (at, process) = world.spawn_from(endpoint);
        let root = at.path("");
        // The first call is answered once the process is ready: its start is not measured.
        root.metadata().expect("served");
        Self { root, _end: Ends::Volume { _at: at, _process: process } }
    }

    /// `None`, and says so, if rclone is not installed.
    pub(crate) fn rclone(endpoint: &str, token: &str) -> Option<Self> {
        let at = tempfile::tempdir().expect("a directory");
        let token = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expiry":"2099-01-01T00:00:00Z"}}"#);
        let process = Command::new("rclone")
            .args(["mount", "--read-only", "--config", "/dev/null", "--log-level", "ERROR"])
            .args(["--gcs-endpoint", &format!("{endpoint}/storage/v1/"), "--gcs-token", &token])
            .arg(format!(":gcs:{BUCKET}"))
            .arg(at.path())
            .stdin(Stdio::null())
            .spawn();
        let Ok(process) = process else {
            writeln!(std::io::stderr(), "SKIPPED: no rclone to compare with; apt-get install rclone").expect("stderr");
            return None;
        };
        let mut rclone = Rclone { at, process };
        while !is_mounted(rclone.at.path()) {
            assert!(rclone.process.try_wait().expect("it is ours").is_none(), "rclone ended");
            std::thread::yield_now();
        }
        Some(Self { root: rclone.at.path().to_owned(), _end: Ends::Rclone { _mount: rclone } })
    }

    /// Names and attributes of all small files; files a second.
    pub(crate) fn list(&self) -> f64 {
        let began = Instant::now();
        let entries = std::fs::read_dir(self.root.join("many")).expect("a directory");
        let bytes: u64 = entries.map(|entry| entry.expect("listed").metadata().expect("known").len()).sum();
        assert_eq!(bytes, (0..FILES).map(|number| small_size(number) as u64).sum::<u64>());
        rate(FILES, began)
    }
}

impl Reader for Mounted {
    fn sequential(&mut self) -> f64 {
        sequential(&self.root.join("large"))
    }

    fn random(&mut self, places: &[u64]) -> f64 {
        let began = Instant::now();
        let file = File::open(self.root.join("large")).expect("opens");
        let mut buffer = [0; 4096];
        for place in places {
            file.read_exact_at(&mut buffer, *place).expect("readable");
        }
        rate(places.len(), began)
    }

    fn small(&mut self, folder: &str, count: usize) -> f64 {
        let began = Instant::now();
        let entries = std::fs::read_dir(self.root.join(folder)).expect("a directory");
        let bytes = entries.map(|entry| std::fs::read(entry.expect("listed").path()).expect("readable").len());
        assert_eq!(bytes.sum::<usize>(), (0..count).map(small_size).sum::<usize>());
        rate(count, began)
    }
}

/// One file in reads of 1 MiB; bytes a second.
pub(crate) fn sequential(path: &Path) -> f64 {
    let began = Instant::now();
    let mut file = File::open(path).expect("opens");
    let (mut buffer, mut got) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer).expect("readable") {
            0 => break,
            count => got += count,
        }
    }
    assert_eq!(got, LARGE);
    rate(LARGE, began)
}
