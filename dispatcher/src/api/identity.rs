//! Identity tokens of Google, or of any issuer of the same kind: whose e-mail address they prove.
//!
//! Refuses every algorithm but RS256, every audience but the configured one, and an address that is not verified. Which
//! tenant an address may act for is the registry's. Cryptography is `ring`, handed to `jsonwebtoken` here; signing is
//! nobody's business in this process and refused.

use std::sync::Once;
use std::time::Instant;

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::signature::{Error as SignatureError, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Validation};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::Deserialize;

use super::Refused;
use super::jwks::Jwks;
use crate::config::Oidc;

/// Seconds that the issuer's clock and ours may differ.
const SKEW: u64 = 30;
/// Google's tokens have about 1 KiB.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Who vouches for callers.
#[derive(Debug)]
pub struct Identities {
    jwks: Jwks,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    email: Option<String>,
    /// Absent is not verified.
    #[serde(default)]
    email_verified: bool,
}

impl Identities {
    /// The issuer of a configuration.
    pub fn new(oidc: &Oidc) -> reqwest::Result<Self> {
        install_ring();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = SKEW;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.set_audience(&[&oidc.audience]);
        validation.set_issuer(&oidc.issuers);
        Ok(Self { jwks: Jwks::new(&oidc.jwks)?, validation })
    }

    /// The verified e-mail address that a token proves, in lower case. Why a token proves nothing is told to the log
    /// alone.
    pub(super) async fn email(&self, token: &str) -> Result<String, Refused> {
        let refused = |why: &str| {
            tracing::debug!(why, "identity token refused");
            Refused::Stranger
        };
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused("too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| refused(&error.to_string()))?;
        if header.alg != Algorithm::RS256 {
            return Err(refused("another algorithm than RS256"));
        }
        let kid = header.kid.ok_or_else(|| refused("it names no key"))?;
        let key =
            self.jwks.key(&kid, Instant::now()).await.map_err(|error| Refused::Unavailable(crate::chain(&error)))?;
        let key = key.ok_or_else(|| refused("its key is not known"))?;
        let decoded = jsonwebtoken::decode::<Claims>(token, &key, &self.validation);
        let claims = decoded.map_err(|error| refused(&error.to_string()))?.claims;
        let email = claims.email.filter(|_| claims.email_verified).ok_or_else(|| refused("no verified address"))?;
        Ok(email.to_ascii_lowercase())
    }
}

static RING: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    verifier_factory: |algorithm, key| match (algorithm, key.family()) {
        (Algorithm::RS256, AlgorithmFamily::Rsa) => Ok(Box::new(Rs256(key.clone()))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

fn install_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if RING.install_default().is_err() {
            tracing::debug!("the process has chosen the cryptography of its tokens already");
        }
    });
}

struct Rs256(DecodingKey);

impl Verifier<Vec<u8>> for Rs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let DecodingKeyKind::RsaModulusExponent { n, e } = self.0.kind() else { return Err(SignatureError::new()) };
        let key = RsaPublicKeyComponents { n, e };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for Rs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}
