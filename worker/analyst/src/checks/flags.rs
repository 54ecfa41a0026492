//! Files that hold more than data, as the scan before parsing told: for the record, since nothing of it was followed.

use carrel_schemas::findings::{FindingKind::DataQuality, Level, Locator};

use crate::frame::FrameSource;
use crate::state::{Saying, State, evidence};

pub(crate) fn check(flagged: &[(FrameSource, Vec<String>)], state: &mut State) {
    for (source, messages) in flagged {
        state.say(Saying {
            rule: "files.flagged",
            kind: DataQuality,
            level: Level::Note,
            weight: 10,
            title: format!("{} holds more than data", source.name),
            statement: format!(
                "It {}. It was read as data: nothing of it was run, opened or fetched.",
                messages.join("; it ")
            ),
            metrics: vec![],
            evidence: vec![evidence(source, Locator::File, "what the scan before parsing found")],
            caveats: vec![],
            ask: "Open it with care, and ask its author for plain data.",
        });
    }
}
