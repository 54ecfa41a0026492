//! The hostile cases as data: number, promise, what is tried, what comes of it in each tier.
//!
//! Numbers are those of the project's list of hostile cases; one number may be several attacks. Those that are no
//! business of a room stand in [`ELSEWHERE`], each with the test that holds it. What tier `process` does not promise stands here as it is: it hides no
//! files and caps no directory.

use crate::stories;
use crate::world::World;

/// What is tried, and how what came of it is told.
pub(crate) enum Proof {
    /// The attacker's arguments; what it says, or the limit that ended it, is the outcome.
    Attack(&'static [&'static str]),
    /// More than one attack, or seen from outside.
    Story(for<'a> fn(&'a World) -> stories::Told<'a>),
}

/// Outcomes by tier; `|` stands between those that depend on what the kernel has.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) process_as_root: &'static str,
    pub(crate) process_as_user: &'static str,
    pub(crate) namespaces: &'static str,
    pub(crate) oci: &'static str,
    pub(crate) runsc: &'static str,
}

/// One hostile case.
pub(crate) struct Case {
    pub(crate) number: u8,
    pub(crate) name: &'static str,
    pub(crate) proof: Proof,
    pub(crate) expected: Expected,
}

/// A case that is held where its subject lives: by which test, in which file.
pub(crate) struct Held {
    pub(crate) number: u8,
    pub(crate) what: &'static str,
    pub(crate) file: &'static str,
    pub(crate) test: &'static str,
}

const fn held(number: u8, what: &'static str, file: &'static str, test: &'static str) -> Held {
    Held { number, what, file, test }
}

const OUTBOX: &str = "worker/src/outbox.rs";
const PROXY: &str = "infra/egress/src/serve/tests/hostile.rs";
const FLAGS: &str = "worker/src/scan/tests/flags.rs";
const ATTACKS_OF_FILES: &str = "tests/promises/hostile_files.rs";

/// Every one of them.
pub(crate) const ELSEWHERE: &[Held] = &[
    held(3, "a symbolic link at delivery", OUTBOX, "only_plain_files_leave"),
    held(4, "/output swapped during the walk", OUTBOX, "a_directory_put_in_the_place_of_the_output_is_not_delivered"),
    held(
        4,
        "a file swapped for a link during it",
        OUTBOX,
        "a_file_that_turns_into_a_link_and_back_during_the_walk_gives_no_foreign_byte",
    ),
    held(
        11,
        "metadata by other names, through the proxy",
        PROXY,
        "the_metadata_server_is_refused_in_every_spelling_before_anything_is_dialled",
    ),
    held(13, "a name in a denied CONNECT", PROXY, "a_denied_name_is_never_put_to_a_resolver"),
    held(16, "a CONNECT relayed by another process", PROXY, "a_relay_in_the_room_lends_nobody_another_identity"),
    held(17, "an empty allow-list", PROXY, "an_empty_list_denies_all"),
    held(18, "an allowed name with a private address", PROXY, "a_listed_name_with_a_private_address_is_refused"),
    held(44, "mode 04755 at delivery", OUTBOX, "a_program_that_runs_as_its_owner_is_delivered_as_bytes"),
    held(46, "a socket at delivery", OUTBOX, "only_plain_files_leave"),
    held(47, "names that mislead, at delivery", OUTBOX, "only_plain_files_leave"),
    held(49, "a printed completion event is data", "worker/src/review.rs", "a_printed_completion_event_is_data"),
    held(51, "archive bombs", ATTACKS_OF_FILES, "a_bomb_is_refused_by_its_ratio_before_anything_parses_it"),
    held(52, "external links and formulas", FLAGS, "what_a_workbook_reaches_for_or_runs_is_flagged"),
    held(52, "of which none is fetched", ATTACKS_OF_FILES, "links_and_formulas_are_flagged_and_nothing_is_fetched"),
    held(53, "active PDF content", FLAGS, "what_a_pdf_would_run_or_carries_is_flagged_however_it_is_spelt_and_packed"),
    held(55, "a missing primitive", "infra/sandbox/src/probe.rs", "each_missing_primitive_is_named_with_its_remedy"),
];

const fn all(word: &'static str) -> Expected {
    Expected { process_as_root: word, process_as_user: word, namespaces: word, oci: word, runsc: word }
}

impl Expected {
    const fn process(self, word: &'static str) -> Self {
        Self { process_as_root: word, process_as_user: word, ..self }
    }
    const fn user(self, word: &'static str) -> Self {
        Self { process_as_user: word, ..self }
    }
    const fn oci(self, word: &'static str) -> Self {
        Self { oci: word, runsc: word, ..self }
    }
    const fn runsc(self, word: &'static str) -> Self {
        Self { runsc: word, ..self }
    }
}

const fn attack(number: u8, name: &'static str, attack: &'static [&'static str], expected: Expected) -> Case {
    Case { number, name, proof: Proof::Attack(attack), expected }
}

const fn story(
    number: u8,
    name: &'static str,
    story: for<'a> fn(&'a World) -> stories::Told<'a>,
    expected: Expected,
) -> Case {
    Case { number, name, proof: Proof::Story(story), expected }
}

/// gVisor has one answer for every call that a bundle does not list.
const NO_CALL: Expected = all("ENOSYS").runsc("EPERM");
/// Where there is no network namespace there are no sockets of the internet's families.
const NO_ROUTE: Expected = all("ENETUNREACH").process("ENOSYS").runsc("EHOSTUNREACH");

/// Every case that concerns a room.
pub(crate) const CASES: &[Case] = &[
    attack(
        1,
        "another_tenants_file_is_not_there",
        &["read", "{secret}"],
        all("ENOENT").process("EACCES").user("reached"),
    ),
    attack(
        2,
        "a_link_to_it_leads_nowhere",
        &["read-by-link", "{output}", "{secret}"],
        all("ENOENT").process("EACCES").user("reached"),
    ),
    attack(
        5,
        "input_cannot_be_hard_linked_out",
        &["hardlink", "{input}/f001.csv", "{output}/x"],
        all("EXDEV").process("EPERM").user("done"),
    ),
    attack(6, "the_first_process_hides_its_root", &["into-first", "{first}", "root"], all("EACCES").runsc("is it")),
    attack(
        6,
        "the_first_process_hides_its_descriptors",
        &["into-first", "{first}", "fd"],
        all("EACCES").runsc("is it"),
    ),
    attack(
        7,
        "the_first_process_hides_its_environment",
        &["into-first", "{first}", "environ"],
        all("EACCES").runsc("is it"),
    ),
    attack(
        7,
        "the_programs_environment_is_out_of_reach",
        &["read", "/proc/{host}/environ"],
        all("ENOENT").process("EACCES"),
    ),
    attack(8, "three_descriptors_are_inherited", &["descriptors"], all("0 1 2")),
    attack(9, "the_machines_processes_are_invisible", &["processes"], all("its own").process("others")),
    attack(9, "the_program_cannot_be_signalled", &["signal", "{host}"], all("ESRCH").process("EPERM")),
    attack(10, "metadata_is_unreachable", &["connect", "169.254.169.254:80"], NO_ROUTE),
    attack(12, "names_are_not_resolved", &["resolve"], all("EAI_AGAIN")),
    attack(12, "no_datagram_leaves", &["datagram"], NO_ROUTE),
    attack(14, "the_machines_loopback_is_another", &["connect", "{loopback}"], NO_ROUTE.runsc("ECONNREFUSED")),
    attack(
        15,
        "abstract_sockets_of_the_machine_are_not_there",
        &["abstract", "{abstract}"],
        all("ECONNREFUSED").process("EPERM"),
    ),
    story(
        19,
        "a_fork_bomb_meets_its_limit_and_the_machine_forks_on",
        stories::fork_bomb,
        all("EAGAIN").process("EAGAIN|ended").oci("EAGAIN|ended"),
    ),
    story(
        19,
        "as_many_processes_as_its_limit_and_no_more",
        stories::forks,
        all("at its limit").process("held").runsc("held"),
    ),
    attack(20, "a_memory_hog_is_ended", &["memory", "4096"], all("Memory")),
    attack(20, "memory_is_counted_over_all_processes", &["memory-of-many", "80"], all("Memory")),
    attack(20, "a_thread_hides_no_child", &["memory-behind-a-thread", "80"], all("Memory")),
    attack(21, "scratch_holds_so_many_bytes", &["fill", "{scratch}", "16"], all("ENOSPC").process("done")),
    attack(22, "scratch_holds_so_many_files", &["many-files", "{scratch}", "2000"], all("ENOSPC").process("done")),
    attack(23, "output_holds_so_many_files", &["many-files", "{output}", "2000"], all("ENOSPC").process("done")),
    attack(24, "output_holds_so_many_bytes", &["fill", "{output}", "16"], all("ENOSPC").process("done")),
    attack(25, "no_file_is_larger_than_its_limit", &["sparse", "{output}"], all("EFBIG")),
    attack(25, "whoever_heeds_the_signal_ends_by_it", &["large-file", "{output}"], all("FileSize")),
    attack(26, "endless_output_is_cut_and_ended", &["shout"], all("Output")),
    attack(26, "so_are_endless_errors", &["shout-errors"], all("Output")),
    story(27, "a_daemon_is_gone_with_its_room", stories::orphan, all("gone")),
    story(27, "a_daemon_is_gone_with_a_killed_room", stories::orphan_of_a_killed_room, all("gone")),
    story(28, "all_die_with_the_launcher", stories::launcher_killed, all("gone")),
    story(28, "all_die_with_the_program", stories::program_killed, all("gone")),
    story(29, "a_spinning_command_is_ended_at_its_deadline", stories::spin, all("Wall")),
    story(29, "processor_time_is_a_limit_of_its_own", stories::burn, all("Cpu")),
    story(29, "it_is_summed_over_all_processes", stories::burn_in_many, all("Cpu")),
    attack(30, "the_clock_cannot_be_set", &["set-clock"], NO_CALL),
    attack(30, "nor_by_its_elder_call", &["syscall", "settimeofday"], NO_CALL),
    attack(30, "nor_be_slowed", &["syscall", "adjtimex"], NO_CALL),
    attack(31, "su_gives_nothing", &["su"], all("refused")),
    attack(31, "another_user_cannot_be_taken", &["set-uid"], all("refused")),
    attack(31, "there_are_no_capabilities", &["capabilities"], all("none")),
    attack(32, "a_limit_cannot_be_raised", &["raise-limit"], all("EPERM")),
    attack(32, "a_priority_cannot_be_raised", &["nice"], all("EACCES").runsc("done")),
    attack(32, "limits_of_others_are_not_its_to_set", &["limit-of-another", "{first}"], NO_CALL),
    attack(33, "ptrace_is_no_call", &["syscall", "ptrace"], NO_CALL),
    attack(33, "process_vm_readv_is_no_call", &["syscall", "process_vm_readv"], NO_CALL),
    attack(33, "pidfd_getfd_is_no_call", &["syscall", "pidfd_getfd"], NO_CALL),
    attack(34, "mount_is_no_call", &["syscall", "mount"], NO_CALL),
    attack(34, "umount_is_no_call", &["syscall", "umount2"], NO_CALL),
    attack(34, "unshare_is_no_call", &["syscall", "unshare"], NO_CALL),
    attack(34, "setns_is_no_call", &["syscall", "setns"], NO_CALL),
    attack(34, "pivot_root_is_no_call", &["syscall", "pivot_root"], NO_CALL),
    attack(34, "chroot_is_no_call", &["syscall", "chroot"], NO_CALL),
    attack(34, "clone_makes_no_namespace", &["new-user-namespace"], NO_CALL),
    attack(34, "clone3_is_no_call", &["syscall", "clone3"], NO_CALL.runsc("ENOSYS")),
    attack(34, "the_other_numbers_are_no_calls", &["x32"], NO_CALL.oci("Signal(31)").runsc("EPERM")),
    attack(34, "personality_is_no_call", &["syscall", "personality"], NO_CALL),
    attack(34, "files_are_not_opened_by_handle", &["syscall", "open_by_handle_at"], NO_CALL),
    attack(35, "keyctl_is_no_call", &["syscall", "keyctl"], NO_CALL),
    attack(35, "add_key_is_no_call", &["syscall", "add_key"], NO_CALL),
    attack(35, "request_key_is_no_call", &["syscall", "request_key"], NO_CALL),
    attack(35, "bpf_is_no_call", &["syscall", "bpf"], NO_CALL),
    attack(35, "perf_event_open_is_no_call", &["syscall", "perf_event_open"], NO_CALL),
    attack(35, "userfaultfd_is_no_call", &["syscall", "userfaultfd"], NO_CALL),
    attack(35, "io_uring_setup_is_no_call", &["syscall", "io_uring_setup"], NO_CALL),
    attack(35, "memory_that_no_process_holds_is_not_made", &["shared-memory"], NO_CALL),
    attack(35, "nor_as_a_file_without_a_name", &["memory-file"], NO_CALL),
    attack(36, "packet_sockets_are_refused", &["socket", "17"], NO_CALL),
    attack(36, "vsock_sockets_are_refused", &["socket", "40"], NO_CALL),
    attack(36, "netlink_sockets_are_refused", &["socket", "16"], NO_CALL),
    attack(36, "the_kernels_ciphers_are_refused", &["socket", "38"], NO_CALL),
    attack(37, "nobody_types_into_a_terminal", &["type-into-terminal"], NO_CALL),
    attack(37, "nor_with_high_bits_set", &["type-with-high-bits"], NO_CALL),
    attack(
        38,
        "core_pattern_cannot_be_written",
        &["write", "/proc/sys/kernel/core_pattern"],
        all("EACCES").oci("EACCES|EROFS"),
    ),
    attack(
        38,
        "sysrq_cannot_be_written",
        &["write", "/proc/sysrq-trigger"],
        all("EACCES|ENOENT").oci("EACCES|EROFS|ENOENT"),
    ),
    attack(
        38,
        "the_machines_devices_are_not_shown",
        &["look", "/sys/devices/system"],
        all("ENOENT").process("reached").runsc("reached"),
    ),
    attack(39, "core_dumps_are_off", &["core-limit"], all("0")),
    story(39, "a_crash_leaves_no_file", stories::crash, all("Signal(6), nothing left")),
    attack(40, "no_block_device_is_made", &["block-device", "{scratch}"], NO_CALL),
    attack(
        41,
        "dev_is_its_own",
        &["devices"],
        all("its own").process("the machine's").runsc("its own and the runtime\'s"),
    ),
    attack(42, "input_is_read_only", &["write", "{input}/f001.csv"], all("EROFS").process("EACCES").user("reached")),
    attack(42, "nothing_is_added_to_input", &["write", "{input}/new"], all("EROFS").process("EACCES").user("reached")),
    attack(42, "the_system_is_read_only", &["write", "/usr/new"], all("EROFS").process("EACCES").runsc("EACCES|EROFS")),
    attack(42, "the_root_is_read_only", &["write", "/new"], all("EROFS").process("EACCES").runsc("EACCES|EROFS")),
    attack(42, "dev_is_read_only", &["write", "/dev/new"], all("EROFS").process("EACCES").runsc("EACCES|reached")),
    attack(43, "nothing_in_output_is_executed", &["run-from", "{output}"], all("EACCES").process("ran")),
    attack(43, "a_program_in_scratch_is", &["run-from", "{scratch}"], all("ran")),
    attack(45, "no_fifo_is_made", &["fifo", "{output}"], NO_CALL),
    attack(48, "the_environment_is_what_was_asked", &["environment"], all("LANG PATH").oci("HOME LANG PATH")),
    story(
        50,
        "the_first_process_cannot_be_ended_from_inside",
        stories::kill_first,
        all("still here, Code(0)").runsc(", Signal(15)"),
    ),
    attack(54, "python_starts_threads_and_programs", &["python"], all("works")),
    attack(54, "numpy_starts", &["numpy"], all("works")),
    // Beyond the list: found while the rooms were built.
    attack(56, "the_machines_name_is_not_told", &["host-name"], all("room").process("the machine's")),
    attack(57, "no_signal_is_ignored_on_arrival", &["ignored-signals"], all("none").runsc("not told")),
    attack(
        58,
        "namespaces_are_counted_by_the_room",
        &["namespaces-left"],
        all("0").process("the machine's").oci("64|0").runsc("not told|64|0"),
    ),
    attack(58, "so_is_what_watches_files", &["watchers"], all("8").process("more").runsc("8|more")),
    story(59, "memory_in_sockets_is_counted", stories::memory_in_sockets, all("Memory").runsc("ended")),
    attack(59, "no_socket_is_given_a_larger_buffer", &["larger-buffer"], NO_CALL),
    // Of 64, three are open on arrival.
    attack(60, "so_many_files_are_open_and_no_more", &["open-files"], all("61 EMFILE")),
    attack(61, "a_rooms_group_is_not_its_to_change", &["lift-limits"], all("held")),
];
