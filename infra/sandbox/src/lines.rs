//! Bytes of a stranger, cut into lines. A line beyond the cap is dropped whole and reading goes on after it.

/// A line splitter with bounded memory.
#[derive(Debug)]
pub(crate) struct Lines {
    max: usize,
    held: Vec<u8>,
    skipping: bool,
}

impl Lines {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, held: Vec::new(), skipping: false }
    }

    /// Takes the next bytes and hands on each line that they complete, without its line feed.
    pub(crate) fn push(&mut self, mut bytes: &[u8], on_line: &mut impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.hold(&bytes[..end]);
            if !self.skipping {
                on_line(&self.held);
            }
            self.held.clear();
            self.skipping = false;
            bytes = &bytes[end + 1..];
        }
        self.hold(bytes);
    }

    /// Hands on what stands after the last line feed.
    pub(crate) fn finish(&mut self, on_line: &mut impl FnMut(&[u8])) {
        if !self.skipping && !self.held.is_empty() {
            on_line(&self.held);
        }
        self.held.clear();
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.skipping || self.held.len() + bytes.len() > self.max {
            self.skipping = true;
            self.held.clear();
        } else {
            self.held.extend_from_slice(bytes);
        }
    }
}

/// The last bytes of a stream.
#[derive(Debug)]
pub(crate) struct Tail {
    max: usize,
    held: Vec<u8>,
}

impl Tail {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, held: Vec::new() }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        let surplus = self.held.len().saturating_sub(self.max);
        self.held.drain(..surplus);
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_line_is_dropped_and_the_next_one_read() {
        let mut seen = Vec::new();
        let mut keep = |line: &[u8]| seen.push(String::from_utf8_lossy(line).into_owned());
        let mut lines = Lines::new(4);
        for part in [&b"ab"[..], b"\nlong", b"er", b"\ncd\n", b"e"] {
            lines.push(part, &mut keep);
        }
        lines.finish(&mut keep);
        assert_eq!(seen, ["ab", "cd", "e"]);
    }
}
