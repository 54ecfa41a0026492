//! A real clamd with one signature of its own, started and stopped here.

use std::io::Cursor;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::*;

/// The harmless file that every scanner agrees to find, in two pieces, so that this source is not found itself.
const EICAR: [&str; 2] = ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD", "-ANTIVIRUS-TEST-FILE!$H+H*"];
/// Its MD5 and length, as a signature.
const SIGNATURE: &str = "44d88612fea8a8f36de82e1278abb02f:68:Eicar-Test-Signature\n";

/// A clamd of this test alone.
struct Running {
    child: Child,
    clamd: Clamd,
    _dir: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().expect("it is ours to end");
        self.child.wait().expect("it ends");
    }
}

/// None, and why, where clamd is not installed.
fn start() -> Option<Running> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&paths).chain(["/usr/sbin".into()]);
    let Some(program) = places.map(|place| place.join("clamd")).find(|path| path.is_file()) else {
        writeln!(std::io::stderr(), "SKIPPED: clamd is not installed (apt-get install clamav-daemon)").expect("stderr");
        return None;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("signatures")).expect("made");
    std::fs::write(at("signatures/test.hdb"), SIGNATURE).expect("written");
    let (socket, signatures) = (at("clamd.ctl"), at("signatures"));
    let settings = format!(
        "Foreground yes\nLocalSocket {}\nDatabaseDirectory {}\nStreamMaxLength 1M\nMaxThreads 2\n",
        socket.display(),
        signatures.display()
    );
    std::fs::write(at("clamd.conf"), settings).expect("written");
    let child = Command::new(program)
        .arg("--config-file")
        .arg(at("clamd.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("clamd starts");
    let mut running = Running { child, clamd: Clamd::Unix(socket), _dir: dir };
    listens(&mut running);
    Some(running)
}

#[expect(clippy::disallowed_methods, reason = "clamd tells nobody when its socket is there")]
fn listens(running: &mut Running) {
    let began = Instant::now();
    while running.clamd.version().is_err() {
        assert!(running.child.try_wait().expect("ours").is_none(), "clamd ended before it listened");
        assert!(began.elapsed() < Duration::from_secs(60), "clamd does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_real_clamd_names_what_it_finds_and_its_limit() {
    let Some(running) = start() else { return };
    let look = |bytes: Vec<u8>| running.clamd.look(&mut Cursor::new(bytes)).expect("it answers");
    assert!(running.clamd.version().expect("it answers").starts_with("ClamAV "));
    assert_eq!(look(b"sku,units\n1,2\n".to_vec()), Answer::Clean);
    let Answer::Found(name) = look(EICAR.concat().into_bytes()) else { panic!("it is found") };
    assert!(name.starts_with("Eicar-Test-Signature"), "{name}");
    assert_eq!(look(vec![b'1'; 3 << 20]), Answer::TooLarge);
    assert_eq!(look(b"1".to_vec()), Answer::Clean, "it goes on");
}

#[test]
fn a_scanner_that_gives_no_verdict_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let nobody = Clamd::Unix(dir.path().join("nobody.ctl"));
    let error = nobody.look(&mut &b"1"[..]).expect_err("nobody listens");
    assert!(error.to_string().contains("nobody.ctl") && error.to_string().contains("CARREL_CLAMD"), "{error}");
    let path = dir.path().join("clamd.ctl");
    let clamd = Clamd::Unix(path.clone());
    for (says, told) in [(&b"stream: Can't allocate memory ERROR\0"[..], "allocate"), (b"", "hung up")] {
        let socket = UnixListener::bind(&path).expect("bound");
        let serve = std::thread::spawn(move || {
            let (mut stream, _) = socket.accept().expect("asked");
            let mut asked = [0; 10 + 4 + 1 + 4];
            stream.read_exact(&mut asked).expect("the command, a piece, the end");
            stream.write_all(says).expect("answered");
        });
        let error = clamd.look(&mut &b"1"[..]).expect_err("no verdict");
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{error}: {source}").contains(told), "{error}: {source}");
        serve.join().expect("served");
        std::fs::remove_file(&path).expect("removed");
    }
}

#[test]
fn an_address_is_a_path_or_a_host_and_port() {
    assert_eq!("/run/clamav/clamd.ctl".parse(), Ok(Clamd::Unix("/run/clamav/clamd.ctl".into())));
    assert_eq!("clamd:3310".parse(), Ok(Clamd::Tcp("clamd:3310".into())));
    for wrong in ["clamd", "clamd:", ":3310", "clamd:0", "run/clamd.ctl"] {
        assert!(wrong.parse::<Clamd>().expect_err("neither").contains(wrong), "{wrong}");
    }
}
