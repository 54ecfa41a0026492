//! What whoever opens a room relies on: endings, handed out things, rooms in rooms.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use carrel_sandbox::{Entry, Network, Profile, Room, Runtime, StartError, Tier, Watched};
use libtest_mimic::{Failed, Trial};

use crate::stories::{Told, begin, group_apart, group_delegated, group_shared, groups_of_version_two, program_told};
use crate::world::{World, eventually, list, lives, mark};
use crate::{skipped, wait_for};

/// Every promise that a tier keeps.
pub(crate) fn trials(tier: Tier) -> Vec<Trial> {
    let trial = |name: &str, story: for<'a> fn(&'a World) -> Told<'a>, expected: &'static str| {
        Trial::test(format!("{tier}::{name}"), move || hold(tier, story, expected))
    };
    let gvisor = tier == Tier::Oci(Runtime::Runsc);
    // A runtime that stays says signals as shells do, in codes.
    let exact = "Code(0) Code(7) Code(137) Signal(10) Signal(9)";
    let told = if gvisor { "Code(0) Code(7) Signal(9) Signal(10) Signal(9)" } else { exact };
    let mut trials = vec![
        trial("exits_are_reported", exits, told),
        trial("a_program_that_is_not_there_is_named", no_program, "start /no/such in its room"),
    ];
    if gvisor {
        for name in ["dropping_a_room_ends_it", "a_start_that_is_given_up_leaves_nothing"] {
            trials.push(skipped(format!("{tier}::{name}"), crate::UNSEEN));
        }
        let why = "a command is process 1 in gVisor, to which nobody's SIGTERM gets through; it can be killed";
        trials.push(skipped(format!("{tier}::a_command_that_is_asked_to_end_ends"), why));
    } else {
        trials.extend([
            trial("dropping_a_room_ends_it", dropped, "gone"),
            trial("a_start_that_is_given_up_leaves_nothing", given_up, "gone"),
            trial("a_command_that_is_asked_to_end_ends", terminated, "Signal(15)"),
            trial("a_command_that_does_not_listen_is_killed", killed, "Signal(9)"),
        ]);
    }
    trials.push(trial("a_room_is_not_in_its_programs_group_of_processes", group_apart, "apart"));
    if tier == Tier::Process || gvisor {
        trials.push(trial("listeners_are_refused_by_name", listeners_refused, "refused"));
        return trials;
    }
    trials.extend([
        trial("what_was_left_in_output_is_read_after_everybody_died", left_behind, "notes.txt"),
        trial("a_listener_is_reached_from_its_room_alone", listener, "hello, room"),
        trial("two_rooms_with_one_address_do_not_meet", two_listeners, "first second"),
    ]);
    if tier != Tier::Namespaces {
        return trials;
    }
    trials.extend([
        trial("five_thousand_files_are_shown", many_shown, "5000, and in a task 5000"),
        trial("a_link_in_the_view_leads_no_entry_out", link_in_view, "ENOENT, untouched"),
        trial("a_program_is_told_that_its_launcher_is_gone", program_told, "told"),
        trial("a_task_opens_rooms_of_its_own", inner_room, "0 1 2"),
        trial("a_task_mounts_no_control_group", mounts_group, "ENOSPC EPERM"),
        trial("a_task_has_its_share_of_namespaces_and_no_more", many_namespaces, "64 ENOSPC EACCES"),
        trial("a_room_that_is_watched_is_ended_at_its_memory", watched, "Memory"),
        trial("an_inner_room_reaches_nothing_of_the_outer", inner_reach, "ENOENT ENOENT none its own"),
        trial("55_a_command_that_opens_a_room_is_told_what_is_missing", missing_clone, "named"),
        trial("55_a_machine_without_user_namespaces_is_told_so", missing_namespaces, "named"),
        trial("55_a_probe_finds_what_stands", probed, "stands"),
        trial("55_a_probe_under_a_filter_names_it", probed_under_a_filter, "named"),
        trial("55_a_probe_without_user_namespaces_names_the_setting", probed_without_namespaces, "named"),
        trial("55_a_probe_of_volumes_and_memory_gives_the_remedy", probed_here, "named"),
        trial("55_a_kata_that_runs_no_bundle_is_named", probed_later_kata, "named"),
        trial("55_a_runtime_that_starts_nothing_is_not_believed", probed_idle_runtimes, "named"),
        trial("55_a_runtime_that_hangs_is_given_up", probed_hung_runtime, "named"),
        trial("55_no_room_of_kata_opens_before_its_probe", unproven, "held"),
    ]);
    let version_two = |name: &str, story: for<'a> fn(&'a World) -> Told<'a>, expected| match groups_of_version_two() {
        Some(_) => trial(name, story, expected),
        None => skipped(format!("{tier}::{name}"), "it takes control groups of version 2 that may be made here"),
    };
    let kept = "[carrel.programs] [a group of its own] true, [carrel.programs] [a group of its own] true";
    trials.extend([
        version_two("a_program_alone_in_a_delegated_group_makes_way_for_its_rooms", group_delegated, kept),
        version_two("a_program_in_company_moves_nobody_and_claims_no_guarantee", group_shared, "[] [] false"),
    ]);
    let name = format!("{tier}::a_volume_hands_out_its_channel");
    let fuse = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    trials.push(match fuse {
        Ok(_) => trial("a_volume_hands_out_its_channel", volume, "asked"),
        Err(error) => skipped(name, &format!("open /dev/fuse: {error}; install fuse3 and chmod 666 /dev/fuse")),
    });
    trials
}

fn hold(tier: Tier, story: for<'a> fn(&'a World) -> Told<'a>, expected: &str) -> Result<(), Failed> {
    let came = wait_for(async { story(&World::new(tier)).await })?;
    if came == expected { Ok(()) } else { Err(format!("came to {came:?}, not to {expected:?}").into()) }
}

fn gone(gone: bool) -> String {
    if gone { "gone" } else { "lives" }.to_owned()
}

fn dropped(world: &World) -> Told<'_> {
    Box::pin(async {
        let mark = mark();
        let (running, _, mut said) = begin(world, &["orphan-and-stay", &mark]).await;
        said.next_line().await.expect("ready");
        assert!(eventually(|| lives(&mark)).await, "it lived");
        drop(running);
        gone(eventually(|| !lives(&mark)).await)
    })
}

fn given_up(world: &World) -> Told<'_> {
    Box::pin(async {
        // At whatever step it is given up.
        for step in 0..40 {
            let mark = mark();
            let room = world.room(&["orphan-and-stay", &mark]);
            let patience = Duration::from_micros(250 * step);
            drop(tokio::time::timeout(patience, world.open(&room)).await);
            if !eventually(|| !lives(&mark)).await {
                return gone(false);
            }
        }
        gone(true)
    })
}

fn terminated(world: &World) -> Told<'_> {
    Box::pin(async {
        let (mut running, _, _) = begin(world, &["sleep"]).await;
        running.terminate();
        format!("{:?}", running.wait().await.expect("ended").exit)
    })
}

fn killed(world: &World) -> Told<'_> {
    Box::pin(async {
        let (mut running, _, mut said) = begin(world, &["ignore-term"]).await;
        said.next_line().await.expect("ready");
        running.terminate();
        let patient = tokio::time::timeout(Duration::from_millis(200), running.wait()).await;
        assert!(patient.is_err(), "it does not listen");
        running.kill();
        format!("{:?}", running.wait().await.expect("ended").exit)
    })
}

fn exits(world: &World) -> Told<'_> {
    Box::pin(async {
        let mut seen = Vec::new();
        let attacks = [["exit-with", "0"], ["exit-with", "7"], ["exit-with", "137"], ["raise", "10"], ["raise", "9"]];
        for attack in attacks {
            let (mut running, _, _) = begin(world, &attack).await;
            seen.push(format!("{:?}", running.wait().await.expect("ended").exit));
        }
        seen.join(" ")
    })
}

fn no_program(world: &World) -> Told<'_> {
    Box::pin(async {
        let mut room = world.room(&[]);
        room.command.program = "/no/such".into();
        match world.open(&room).await {
            Err(error @ StartError::Command { .. }) => error.to_string(),
            other => format!("{:?}", other.map(|came| came.said)),
        }
    })
}

fn loopback() -> SocketAddr {
    "127.0.0.1:8080".parse().expect("an address")
}

fn listeners_refused(world: &World) -> Told<'_> {
    Box::pin(async {
        let mut room = world.room(&["descriptors"]);
        room.network = Network::Listeners(vec![loopback()]);
        match world.open(&room).await {
            Err(StartError::Build { step, .. }) if step.contains("listen") => "refused".to_owned(),
            other => format!("{:?}", other.map(|came| came.said)),
        }
    })
}

fn left_behind(world: &World) -> Told<'_> {
    Box::pin(async {
        let came = world.attack(&["put", "{output}/notes.txt", "what was found"]).await;
        let (_, root) = came.finished.fresh.iter().find(|(at, _)| at.ends_with("output")).expect("handed out");
        let flags = rustix::fs::OFlags::RDONLY;
        let file = rustix::fs::openat(root, "notes.txt", flags, rustix::fs::Mode::empty()).expect("opened");
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text).expect("read");
        assert_eq!(text, "what was found");
        list(root).join(" ")
    })
}

/// Runs `say` in a room with a listener at which somebody answers with these words.
async fn ask(world: &World, answer: &'static str) -> String {
    let mut room = world.room(&["say", "127.0.0.1:8080"]);
    room.network = Network::Listeners(vec![loopback()]);
    let serve = |mut handed: carrel_sandbox::Handed| {
        let listener = handed.listeners.pop().expect("handed out");
        listener.set_nonblocking(false).expect("blocking");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("called");
            let mut heard = String::new();
            stream.read_to_string(&mut heard).expect("heard");
            assert_eq!(heard, "hello");
            stream.write_all(answer.as_bytes()).expect("answered");
        });
    };
    world.open_and(&room, serve).await.expect("the room opens").said
}

fn listener(world: &World) -> Told<'_> {
    Box::pin(async {
        let outside = std::net::TcpStream::connect_timeout(&loopback(), Duration::from_millis(200));
        assert!(outside.is_err(), "nobody listens there outside");
        ask(world, "hello, room").await
    })
}

fn two_listeners(world: &World) -> Told<'_> {
    Box::pin(async {
        let (first, second) = tokio::join!(ask(world, "first"), ask(world, "second"));
        format!("{first} {second}")
    })
}

fn many_shown(world: &World) -> Told<'_> {
    Box::pin(async {
        let mut room = world.room(&["list", "/many"]);
        let at = |number| format!("/many/f{number:04}.csv").into();
        room.view
            .extend((0..5_000).map(|number| Entry::Show { from: world.outside("input/f001.csv"), at: at(number) }));
        let came = world.open(&room).await.expect("the room opens");
        let nested = world.open(&world.task(&["open-a-room-of-many", "5000"])).await.expect("the room opens").word();
        format!("{}, and in a task {nested}", came.said.split(' ').count())
    })
}

fn link_in_view(world: &World) -> Told<'_> {
    Box::pin(async {
        // A link that means the machine's directory to whoever follows it outside.
        let target = world.outside("input");
        let mut room = world.room(&["read", "/x/planted"]);
        room.view.push(Entry::Link { at: "/x".into(), to: target.clone() });
        room.view.push(Entry::Text { at: "/x/planted".into(), text: "planted".to_owned() });
        let came = match world.open(&room).await {
            Ok(came) => came.said,
            Err(StartError::Build { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => "ENOENT".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        let untouched = if target.join("planted").exists() { "planted outside" } else { "untouched" };
        format!("{came}, {untouched}")
    })
}

fn inner_room(world: &World) -> Told<'_> {
    Box::pin(async { world.open(&world.task(&["open-a-room"])).await.expect("the room opens").word() })
}

fn many_namespaces(world: &World) -> Told<'_> {
    Box::pin(async {
        let mut room = world.task(&["many-namespaces"]);
        room.limits.processes = 128;
        world.open(&room).await.expect("the room opens").word()
    })
}

fn mounts_group(world: &World) -> Told<'_> {
    Box::pin(async {
        let room = world.task(&["mount-its-group", "{scratch}"]);
        world.open(&room).await.expect("the room opens").word()
    })
}

fn watched(world: &World) -> Told<'_> {
    Box::pin(async {
        let (running, _, _) = begin(world, &["memory-of-many", "80"]).await;
        let mut watched = Watched::new(running, world.room(&[]).limits);
        let (_, hit) = watched.wait().await.expect("ended");
        hit.map_or_else(|| "none".to_owned(), |hit| format!("{hit:?}"))
    })
}

fn inner_reach(world: &World) -> Told<'_> {
    Box::pin(async { world.open(&world.task(&["out-of-an-inner-room"])).await.expect("the room opens").word() })
}

/// Whether it says which step failed and what to do.
async fn names_the_step(world: &World, room: &Room, step: &str, fix: &str) -> String {
    let came = world.open(room).await.expect("the room opens").word();
    let named =
        came.starts_with(&format!("build a room of tier namespaces: {step} (to mend it: ")) && came.contains(fix);
    if named { "named".to_owned() } else { came }
}

fn missing_clone(world: &World) -> Told<'_> {
    Box::pin(async {
        let mut room = world.task(&["open-a-room"]);
        room.profile = Profile::Command;
        // The first thing that it would need.
        names_the_step(world, &room, "write the plan of a room", "--security-opt seccomp=unconfined").await
    })
}

fn missing_namespaces(world: &World) -> Told<'_> {
    Box::pin(async {
        let room = world.task(&["open-a-room-without-user-namespaces"]);
        let fix = "sysctl user.max_user_namespaces=15000";
        names_the_step(world, &room, "create the namespaces of tier namespaces", fix).await
    })
}

fn volume(world: &World) -> Told<'_> {
    Box::pin(async {
        let mut room = world.room(&["look", "/volume"]);
        room.view.push(Entry::Volume { at: "/volume".into() });
        room.limits.wall = Duration::from_secs(5);
        // The kernel's first words to whoever serves the channel: an INIT request, its opcode 26 in the second word.
        let serve = |handed: carrel_sandbox::Handed| {
            let mut request = [0; 8 << 10];
            let channel = handed.volume.expect("handed out");
            let count = rustix::io::read(&channel, &mut request).expect("asked");
            count > 8 && u32::from_ne_bytes(request[4..8].try_into().expect("a word")) == 26
        };
        let mut asked = false;
        let came = world.open_and(&room, |handed| asked = serve(handed)).await.expect("the room opens");
        if asked { "asked".to_owned() } else { came.word() }
    })
}

fn probed(world: &World) -> Told<'_> {
    Box::pin(async { world.open(&world.task(&["probe"])).await.expect("the room opens").word() })
}

fn probed_under_a_filter(world: &World) -> Told<'_> {
    Box::pin(async {
        let mut room = world.task(&["probe"]);
        room.profile = Profile::Command;
        let came = world.open(&room).await.expect("the room opens").word();
        let named = came.starts_with("a system call filter forbids building rooms (write the plan of a room");
        if named { "named".to_owned() } else { came }
    })
}

fn probed_without_namespaces(world: &World) -> Told<'_> {
    Box::pin(async {
        let room = world.task(&["probe-without-user-namespaces"]);
        let came = world.open(&room).await.expect("the room opens").word();
        if came.ends_with("sysctl user.max_user_namespaces=15000") { "named".to_owned() } else { came }
    })
}

/// Whatever this user may, it is found; whatever it may not, the remedy is said.
fn probed_here(_world: &World) -> Told<'_> {
    Box::pin(async {
        let volume = carrel_sandbox::probe_volume().await.map_err(|missing| missing.to_string());
        let memory = carrel_sandbox::probe_memory().await.map_err(|missing| missing.to_string());
        let fuse = std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
        let volume_is_told = volume.as_ref().map_or_else(|words| words.contains("/dev/fuse"), |()| fuse);
        let memory_is_told = memory.as_ref().map_or_else(|words| words.contains("run as root"), |()| true);
        if volume_is_told && memory_is_told { "named".to_owned() } else { format!("{volume:?} {memory:?}") }
    })
}

/// What is found of a tier where this script lies in the place of its runtime.
async fn probed_with(world: &World, tier: &str, runtime: &str, script: &str) -> String {
    let dir = world.outside(runtime);
    std::fs::create_dir(&dir).expect("made");
    // Another process writes it: a program that is still open for writing, here or in whatever another test forks
    // meanwhile, cannot be started.
    let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\" && chmod 755 \"$1\"";
    let wrote =
        std::process::Command::new("/bin/sh").args(["-c", write, "sh", runtime, script]).current_dir(&dir).status();
    assert!(wrote.expect("a shell").success());
    let mut room = world.task(&["probe", tier]);
    room.limits.wall = Duration::from_secs(40);
    // Where runtimes are looked for first.
    room.view.push(Entry::Show { from: dir, at: "/usr/local/bin".into() });
    world.open(&room).await.expect("the room opens").word()
}

fn probed_later_kata(world: &World) -> Told<'_> {
    Box::pin(async {
        let came = probed_with(world, "oci:kata", "kata-runtime", "echo 'Invalid command \"run\"' >&2; exit 1").await;
        let says = "no program runs in a room of tier oci:kata (it ended with code 1: Invalid command \"run\"): ";
        if came.starts_with(says) && came.contains("Kata Containers 2") { "named".to_owned() } else { came }
    })
}

fn probed_idle_runtimes(world: &World) -> Told<'_> {
    Box::pin(async {
        let silent = "(it ended with code 0 and without a word)";
        let of = [
            ("oci:kata", "kata-runtime", silent),
            ("oci:runsc", "runsc", silent),
            ("oci:crun", "crun", "read what crun started: "),
        ];
        for (tier, runtime, says) in of {
            let came = probed_with(world, tier, runtime, "exit 0").await;
            if !came.contains(says) {
                return came;
            }
        }
        "named".to_owned()
    })
}

fn probed_hung_runtime(world: &World) -> Told<'_> {
    Box::pin(async {
        let began = Instant::now();
        let came = probed_with(world, "oci:kata", "kata-runtime", "exec sleep 1000").await;
        let in_time = began.elapsed() < Duration::from_secs(20);
        if came.contains("oci:kata (given up after 10 seconds)") && in_time { "named".to_owned() } else { came }
    })
}

/// Whatever this machine has: a room of kata opens where its probe boots one, and is refused in the probe's words where not.
fn unproven(_world: &World) -> Told<'_> {
    Box::pin(async {
        let kata = Tier::Oci(Runtime::Kata);
        let world = World::new(kata);
        let came = world.open(&world.room(&["descriptors"])).await;
        match (carrel_sandbox::probe(kata).await, came) {
            (Ok(()), Ok(_)) => "held".to_owned(),
            (Err(missing), Err(error @ StartError::Unproven { .. })) if error.to_string().contains(&missing.what) => {
                "held".to_owned()
            }
            (probed, came) => format!("{probed:?}, {:?}", came.map(|came| came.said)),
        }
    })
}
