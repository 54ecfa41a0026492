//! Campaigns in the control bucket: the head, its chunks of letters, and a marker while there is something to do.

use carrel_schemas::campaign::{Campaign, CampaignChunk};
use carrel_schemas::ids::CampaignId;
use carrel_schemas::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use super::schema::Stored;
use super::{JSON, Ledger, LedgerError, Versioned, encode, fresh_nonce, names};

#[derive(Debug, Serialize, Deserialize)]
struct OpenCampaign {
    campaign: CampaignId,
    since: Timestamp,
}

impl Stored for OpenCampaign {}

impl Ledger {
    /// Opens a campaign over these chunks unless its id is taken, and returns the one that holds. The head comes last
    /// and decides: chunks that no head names are nobody's.
    pub async fn open_campaign(
        &self,
        mut campaign: Campaign,
        chunks: &[CampaignChunk],
    ) -> Result<Campaign, LedgerError> {
        campaign.items = names::campaign_items(&campaign.id, &fresh_nonce());
        for (at, chunk) in chunks.iter().enumerate() {
            self.create(&names::campaign_chunk(&campaign.items, at), chunk).await?;
        }
        let marker = OpenCampaign { campaign: campaign.id.clone(), since: campaign.created_at };
        self.objects.put(&self.bucket, &names::open_campaign(&campaign.id), encode(&marker), JSON).await?;
        match self.create(&names::campaign(&campaign.id), &campaign).await? {
            Some(_) => Ok(campaign),
            None => Ok(self.campaign(&campaign.id).await?.map_or(campaign, |held| held.value)),
        }
    }

    /// One campaign.
    pub async fn campaign(&self, id: &CampaignId) -> Result<Option<Versioned<Campaign>>, LedgerError> {
        self.read(&names::campaign(id)).await
    }

    /// Every campaign, the newest first.
    pub async fn campaigns(&self) -> Result<Vec<Campaign>, LedgerError> {
        let mut campaigns: Vec<Campaign> = self.read_all(names::CAMPAIGNS).await?;
        campaigns.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
        Ok(campaigns)
    }

    /// Every campaign with something left to do, and since when.
    pub async fn open_campaigns(&self) -> Result<Vec<(CampaignId, Timestamp)>, LedgerError> {
        let found: Vec<OpenCampaign> = self.read_all(names::OPEN_CAMPAIGNS).await?;
        Ok(found.into_iter().map(|open| (open.campaign, open.since)).collect())
    }

    /// Writes `next` if the campaign is still the one read; false if somebody else moved it.
    pub async fn move_campaign(&self, generation: i64, next: &Campaign) -> Result<bool, LedgerError> {
        Ok(self.replace(&names::campaign(&next.id), generation, next).await?.is_some())
    }

    /// Nothing of the campaign is left to do.
    pub async fn close_campaign(&self, id: &CampaignId) -> Result<(), LedgerError> {
        self.objects.delete(&self.bucket, &names::open_campaign(id), None).await?;
        Ok(())
    }

    /// One chunk of a campaign's letters.
    pub async fn chunk(&self, campaign: &Campaign, at: usize) -> Result<Versioned<CampaignChunk>, LedgerError> {
        let name = names::campaign_chunk(&campaign.items, at);
        self.read(&name).await?.ok_or(LedgerError::Gone { name })
    }

    /// Writes `next` if the chunk is still the one read; its new generation, or `None` if somebody else moved it.
    pub async fn move_chunk(
        &self,
        campaign: &Campaign,
        at: usize,
        generation: i64,
        next: &CampaignChunk,
    ) -> Result<Option<i64>, LedgerError> {
        self.replace(&names::campaign_chunk(&campaign.items, at), generation, next).await
    }
}
