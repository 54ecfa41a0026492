//! A system call filter that searches ranges of numbers instead of comparing one number after the other.
//!
//! Every process of a room loads the filter anew, and the kernel checks and translates each instruction: three hundred take
//! a quarter of the time that thirteen hundred take, and every call passes through eight of them instead of hundreds.

use seccompiler::{BpfProgram, sock_filter};

/// Instructions of classic BPF; `linux/bpf_common.h`.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Where the kernel puts the number of the call; `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
/// More than any number of a call, less than any number of an architecture.
const NUMBERS: u32 = 0x1000;

/// The numbers that a compiled filter compares with.
pub(crate) fn numbers(compiled: &BpfProgram) -> Vec<u32> {
    let compared = compiled.iter().filter(|step| step.code == JUMP_IF_EQUAL && step.k < NUMBERS);
    let mut numbers: Vec<u32> = compared.map(|step| step.k).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Puts, in the place of the last word of a compiled filter, a search that allows these numbers, and refuses others with
/// that word.
pub(crate) fn extend(mut compiled: BpfProgram, numbers: &[u32], allow: u32) -> Result<BpfProgram, String> {
    let last = compiled.pop().filter(|step| step.code == RETURN).ok_or("a filter without a last word")?;
    compiled.push(step(LOAD_WORD, 0, 0, NUMBER_AT));
    compiled.extend(search(&bounds(numbers), last.k, allow)?);
    Ok(compiled)
}

/// Where what is said changes: from each bound on, until the next.
fn bounds(numbers: &[u32]) -> Vec<u32> {
    let mut bounds = Vec::new();
    for number in numbers {
        if bounds.last() == Some(number) {
            bounds.pop();
        } else {
            bounds.push(*number);
        }
        bounds.push(number + 1);
    }
    bounds
}

/// Below the first bound is `below`, from it on the other, and so on in turns.
fn search(bounds: &[u32], below: u32, other: u32) -> Result<BpfProgram, String> {
    if bounds.is_empty() {
        return Ok(vec![step(RETURN, 0, 0, below)]);
    }
    let middle = bounds.len() / 2;
    let turned = |count: usize| if count.is_multiple_of(2) { (below, other) } else { (other, below) };
    let less = search(&bounds[..middle], below, other)?;
    let (from, then) = turned(middle + 1);
    let more = search(&bounds[middle + 1..], from, then)?;
    let skip = u8::try_from(less.len()).map_err(|_| "the list has too many gaps for one search".to_owned())?;
    let mut all = vec![step(JUMP_IF_AT_LEAST, skip, 0, bounds[middle])];
    all.extend(less);
    all.extend(more);
    Ok(all)
}

fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a filter says of a call, by an interpreter of the instructions that filters are made of.
    pub(crate) fn verdict(program: &BpfProgram, arch: u32, number: u32, args: [u64; 3]) -> u32 {
        let word = |at: u32| match at {
            0 => number,
            4 => arch,
            16 | 24 | 32 => (args[(at as usize - 16) / 8] & 0xffff_ffff) as u32,
            20 | 28 | 36 => (args[(at as usize - 20) / 8] >> 32) as u32,
            other => panic!("word {other}"),
        };
        let (mut at, mut a) = (0, 0_u32);
        loop {
            let step = &program[at];
            let jump = |yes: bool| usize::from(if yes { step.jt } else { step.jf });
            at += 1 + match step.code {
                LOAD_WORD => {
                    a = word(step.k);
                    0
                }
                0x54 => {
                    a &= step.k;
                    0
                }
                0x05 => step.k as usize,
                JUMP_IF_EQUAL => jump(a == step.k),
                JUMP_IF_AT_LEAST => jump(a >= step.k),
                0x25 => jump(a > step.k),
                RETURN => return step.k,
                other => panic!("instruction {other:#x}"),
            };
        }
    }

    #[test]
    fn a_search_allows_what_is_listed_and_nothing_else() {
        let listed = [0, 1, 2, 7, 9, 10, 300];
        let program = extend(vec![step(RETURN, 0, 0, 5)], &listed, 1).expect("few gaps");
        for number in 0..400 {
            assert_eq!(verdict(&program, 0, number, [0; 3]) == 1, listed.contains(&number), "{number}");
        }
    }
}
