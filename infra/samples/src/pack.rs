//! A pack as it would be uploaded: twelve files, and the problems that were planted in them.

use crate::catalogue::Catalogue;
use crate::line::Line;
use crate::{acme, bolt, books, documents, tables};

/// One tenant's upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamplePack {
    /// The tenant's id.
    pub tenant: &'static str,
    /// The top folder it is uploaded to.
    pub pack: &'static str,
    /// The files, in the order of upload.
    pub files: Vec<SampleFile>,
    /// What is wrong with them, on purpose.
    pub planted: &'static [Planted],
}

/// One file of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleFile {
    /// Its name below the pack's folder.
    pub name: &'static str,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// A problem that a reviewer should find, or an opportunity it should see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planted {
    /// A short name, the same in both packs: `orphan-skus`.
    pub id: &'static str,
    /// The file or files it shows in.
    pub where_: &'static str,
    /// What was done, with the codes, weeks and amounts to look for.
    pub what: &'static str,
}

/// Both packs, the same bytes at every call.
pub fn packs() -> Vec<SamplePack> {
    [&acme::CATALOGUE, &bolt::CATALOGUE].into_iter().map(pack).collect()
}

fn pack(catalogue: &'static Catalogue) -> SamplePack {
    let line = Line::simulate(catalogue);
    let [pos, master, stores, prices, inventory, planogram, promos, market, rivals, scorecard, sheet, terms] =
        catalogue.names;
    let file = |name, bytes| SampleFile { name, bytes };
    let files = vec![
        file(pos, tables::pos(&line)),
        file(master, books::item_master(&line)),
        file(stores, tables::stores(&line)),
        file(prices, books::cost_price(&line)),
        file(inventory, tables::inventory(&line)),
        file(planogram, tables::planogram(&line)),
        file(promos, books::promo_calendar(&line)),
        file(market, tables::market(&line)),
        file(rivals, tables::competitor_prices(&line)),
        file(scorecard, books::scorecard(&line)),
        file(sheet, documents::sell_sheet(&line)),
        file(terms, documents::trade_terms(&line)),
    ];
    SamplePack { tenant: catalogue.tenant, pack: catalogue.pack, files, planted: catalogue.planted }
}
