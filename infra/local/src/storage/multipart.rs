//! A streaming reader of `multipart/related` bodies (RFC 2387) as uploads send them.
//!
//! It keeps one chunk and a boundary's length in memory, whatever the size of a part, and it accepts any part headers
//! but `Content-Type`-less media too. A body that ends before its closing boundary is an error, so a connection that
//! breaks can never finalize half an object.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use std::io;

/// Part headers longer than this are refused.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// A multipart body being read.
#[derive(Debug)]
pub(super) struct Multipart<S> {
    body: S,
    buffer: BytesMut,
    delimiter: Vec<u8>,
    in_part: bool,
}

/// The boundary that a `Content-Type` header declares.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/related") {
        return None;
    }
    let value = parameters.split(';').find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case("boundary").then(|| value.trim())
    })?;
    // The gcloud command line quotes as Python does, and Google takes it.
    let unquoted = |quote: char| value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote));
    let value = unquoted('"').or_else(|| unquoted('\'')).unwrap_or(value);
    (!value.is_empty() && value.len() <= 200).then(|| value.to_owned())
}

/// The value of one header in a part's header block.
pub(super) fn part_header(block: &str, name: &str) -> Option<String> {
    block.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

fn malformed(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

impl<S, E> Multipart<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<io::Error>,
{
    /// Reads `body`, whose parts are divided by `boundary`.
    pub(super) fn new(body: S, boundary: &str) -> Self {
        // With a line break before it the first boundary looks like all others.
        Self {
            body,
            buffer: BytesMut::from(&b"\r\n"[..]),
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            in_part: true,
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.body.next().await {
            Some(Ok(chunk)) => {
                self.buffer.extend_from_slice(&chunk);
                Ok(())
            }
            Some(Err(error)) => Err(error.into()),
            None => Err(malformed("the multipart body ends before its closing boundary")),
        }
    }

    /// Goes to the next part and returns its header block, or `None` after the last one.
    pub(super) async fn next_part(&mut self) -> io::Result<Option<String>> {
        while self.next_chunk().await?.is_some() {}
        while self.buffer.len() < 2 {
            self.more().await?;
        }
        if self.buffer.starts_with(b"--") {
            return Ok(None);
        }
        // Some clients end lines without a carriage return, and Google takes it. What follows the first boundary tells.
        let bare = self.buffer.starts_with(b"\n");
        if bare && self.delimiter.starts_with(b"\r") {
            self.delimiter.remove(0);
        }
        let gap: &[u8] = if bare { b"\n\n" } else { b"\r\n\r\n" };
        loop {
            // Searching from the line break after the boundary finds an empty header block as well.
            if let Some(end) = self.buffer.windows(gap.len()).position(|w| w == gap) {
                let block = self.buffer.split_to(end + gap.len());
                self.in_part = true;
                return String::from_utf8(block.to_vec()).map(Some).map_err(|_| malformed("part headers are no UTF-8"));
            }
            if self.buffer.len() > MAX_HEADER_BYTES {
                return Err(malformed("part headers are too long"));
            }
            self.more().await?;
        }
    }

    /// The next bytes of the current part, or `None` at its end.
    pub(super) async fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        if !self.in_part {
            return Ok(None);
        }
        loop {
            if let Some(at) = find(&self.buffer, &self.delimiter) {
                let chunk = self.buffer.split_to(at).freeze();
                if !chunk.is_empty() {
                    return Ok(Some(chunk));
                }
                self.in_part = false;
                bytes::Buf::advance(&mut self.buffer, self.delimiter.len());
                return Ok(None);
            }
            let safe = self.buffer.len().saturating_sub(self.delimiter.len());
            if safe > 0 {
                return Ok(Some(self.buffer.split_to(safe).freeze()));
            }
            self.more().await?;
        }
    }

    /// The whole current part, if it is no longer than `limit`.
    pub(super) async fn text(&mut self, limit: usize) -> io::Result<Bytes> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.next_chunk().await? {
            if whole.len() + chunk.len() > limit {
                return Err(malformed("the metadata part is too long"));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// The current part as a stream.
    pub(super) fn part(&mut self) -> impl Stream<Item = io::Result<Bytes>> + '_ {
        futures::stream::unfold(self, |multipart| async move {
            multipart.next_chunk().await.transpose().map(|chunk| (chunk, multipart))
        })
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = hay[from..].iter().position(|&b| b == needle[0]) {
        let at = from + at;
        if hay[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
    }

    fn reader(body: &[u8], step: usize) -> Multipart<impl Stream<Item = io::Result<Bytes>> + Unpin> {
        let chunks: Vec<_> = body.chunks(step).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        Multipart::new(futures::stream::iter(chunks), "B")
    }

    #[test]
    fn parts_are_the_same_however_the_network_cuts_them() {
        let body = b"--B\r\nContent-Type: application/json\r\n\r\n{}\r\n--B\r\n\r\nx\r\n--A\r\r\n\r\n--B--\r\n";
        for step in 1..body.len() {
            block_on(async {
                let mut reader = reader(body, step);
                let headers = reader.next_part().await.expect("reads").expect("first part");
                assert_eq!(part_header(&headers, "content-type").as_deref(), Some("application/json"));
                assert_eq!(reader.text(10).await.expect("reads"), "{}");
                assert!(reader.next_part().await.expect("reads").is_some());
                assert_eq!(reader.text(100).await.expect("reads"), &b"x\r\n--A\r\r\n"[..]);
                assert!(reader.next_part().await.expect("reads").is_none());
            });
        }
    }

    #[test]
    fn lines_without_carriage_returns_divide_parts_as_well_and_content_keeps_its_own() {
        let body =
            b"--B\nContent-Type: application/json\nMIME-Version: 1.0\n\n{}\n--B\nContent-Type: a/b\n\nx\r\n\r\n--B--";
        for step in 1..body.len() {
            block_on(async {
                let mut reader = reader(body, step);
                let headers = reader.next_part().await.expect("reads").expect("first part");
                assert_eq!(part_header(&headers, "content-type").as_deref(), Some("application/json"));
                assert_eq!(reader.text(10).await.expect("reads"), "{}");
                assert!(reader.next_part().await.expect("reads").is_some());
                assert_eq!(reader.text(100).await.expect("reads"), &b"x\r\n\r"[..]);
                assert!(reader.next_part().await.expect("reads").is_none());
            });
        }
    }

    #[test]
    fn a_body_cut_short_is_an_error() {
        block_on(async {
            let mut reader = reader(b"--B\r\n\r\nhalf an obj", 7);
            reader.next_part().await.expect("reads").expect("first part");
            assert!(reader.text(100).await.is_err());
        });
    }

    #[test]
    fn boundaries_are_read_quoted_or_plain() {
        assert_eq!(boundary("multipart/related; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(boundary("multipart/related; type=x; boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(boundary("multipart/related; boundary='==1=='").as_deref(), Some("==1=="));
        assert_eq!(boundary("multipart/form-data; boundary=abc"), None);
        assert_eq!(boundary("text/plain"), None);
    }
}
