//! The checksums of content while it arrives: CRC-32C and MD5, kept so that an upload goes on after a restart.
//!
//! Owns how far a file is durable and what its bytes so far come to. The state of the MD5 is written down with it: content
//! that comes in many requests is never read a second time.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use md5::digest::common::hazmat::SerializableState;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

/// How far a file is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Bytes from the start.
    pub(super) size: u64,
    /// Their CRC-32C.
    crc32c: u32,
    /// Where their MD5 stands, in hexadecimal. Empty behind the first byte: nobody knows it any more.
    #[serde(default)]
    md5: String,
}

/// The checksums of whole content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// CRC-32C.
    pub(super) crc32c: u32,
    /// MD5 as the JSON API spells it; composed objects have none.
    pub(super) md5: Option<String>,
}

/// Checksums that are being computed.
#[derive(Clone, Debug)]
pub(super) struct Running {
    size: u64,
    crc32c: u32,
    md5: Option<Md5>,
}

impl Running {
    /// Goes on where `from` ended.
    pub(super) fn resume(from: &Progress) -> Self {
        let known = || {
            let bytes = hex::decode(&from.md5).ok()?;
            Md5::deserialize(bytes.as_slice().try_into().ok()?).ok()
        };
        let md5 = if from.size == 0 { Some(Md5::new()) } else { known() };
        Self { size: from.size, crc32c: from.crc32c, md5 }
    }

    /// Takes in what follows.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    /// Bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// What to write down.
    pub(super) fn progress(&self) -> Progress {
        let md5 = self.md5.as_ref().map(|md5| hex::encode(md5.serialize())).unwrap_or_default();
        Progress { size: self.size, crc32c: self.crc32c, md5 }
    }

    /// The end of it.
    pub(super) fn sums(self) -> Sums {
        Sums { crc32c: self.crc32c, md5: self.md5.map(|md5| BASE64_STANDARD.encode(md5.finalize())) }
    }
}

impl Progress {
    /// The checksums if this is all.
    pub(super) fn sums(&self) -> Sums {
        Running::resume(self).sums()
    }
}

impl Sums {
    /// Of content in hand.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut running = Running::resume(&Progress::default());
        running.update(bytes);
        running.sums()
    }
}

/// A CRC-32C as the JSON API spells it: big endian in base64.
pub(super) fn crc32c_text(crc: u32) -> String {
    BASE64_STANDARD.encode(crc.to_be_bytes())
}

/// Reads a CRC-32C as the JSON API spells it.
pub(super) fn parse_crc32c(text: &str) -> Option<u32> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok().map(u32::from_be_bytes)
}

/// Whether this is an MD5 as the JSON API spells it.
pub(super) fn is_md5(text: &str) -> bool {
    BASE64_STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_four_big_endian_bytes_in_base64() {
        assert_eq!(crc32c_text(crc32c::crc32c(b"123456789")), "4waSgw==");
        assert_eq!(parse_crc32c("4waSgw=="), Some(0xE306_9283));
        assert_eq!(parse_crc32c("AAAA"), None);
        assert!(is_md5("CY9rzUYh03PK3k6DJie09g==") && !is_md5("4waSgw=="));
    }

    #[test]
    fn sums_are_the_same_wherever_they_were_interrupted_and_written_down() {
        let content: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let whole = Sums::of(&content);
        assert_eq!(Sums::of(b"test").md5.as_deref(), Some("CY9rzUYh03PK3k6DJie09g=="));
        for cut in [0, 1, 63, 64, 65, 999, 1000] {
            let mut running = Running::resume(&Progress::default());
            running.update(&content[..cut]);
            let kept = serde_json::to_vec(&running.progress()).expect("is written");
            let mut running = Running::resume(&serde_json::from_slice(&kept).expect("is read"));
            running.update(&content[cut..]);
            assert_eq!((running.size(), running.sums()), (1000, whole.clone()), "cut at {cut}");
        }
    }

    #[test]
    fn an_upload_whose_md5_was_never_written_down_ends_without_one() {
        let old: Progress = serde_json::from_str(r#"{"size":4,"crc32c":2257662080}"#).expect("is read");
        assert_eq!(old.sums(), Sums { crc32c: 2_257_662_080, md5: None });
    }
}
