//! A token as the credentials of Google's clients.

use google_cloud_auth::credentials::{CacheableResource, Credentials, CredentialsProvider, EntityTag};
use google_cloud_auth::errors::CredentialsError;
use http::{Extensions, HeaderMap, HeaderValue, header};

/// A token as credentials.
#[derive(Debug)]
pub(crate) struct Bearer(pub(crate) String);

impl Bearer {
    /// Credentials that send this token.
    pub(crate) fn credentials(token: &str) -> Credentials {
        Self(token.to_owned()).into()
    }
}

impl CredentialsProvider for Bearer {
    async fn headers(&self, _: Extensions) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        let value = HeaderValue::from_str(&format!("Bearer {}", self.0)).expect("a token is ASCII");
        let data = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
        Ok(CacheableResource::New { entity_tag: EntityTag::new(), data })
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}
