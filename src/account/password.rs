//! Password hashing: argon2id with the parameters that OWASP recommends (19 MiB, two passes, one lane).
//!
//! A hash costs tens of milliseconds and 19 MiB, so it runs off the async threads and only a few run at a time. The
//! memory goes back with the hash.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use super::Error;
use crate::environment::Environment;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// On a machine that is simulated, where nobody guesses.
const SIMULATED_KIB: u32 = 64;

/// In bytes. Longer ones are refused: nobody types them.
const MAX_LENGTH: usize = 1024;

/// The salt of a hash that nobody will compare with anything.
const NO_SALT: &[u8; 16] = b"no such account!";

#[derive(Clone)]
pub struct Passwords {
    environment: Environment,
    memory_kib: u32,
    turns: Arc<Semaphore>,
}

impl Passwords {
    pub fn new(environment: Environment) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory_kib = if environment.machine.is_some() { SIMULATED_KIB } else { MEMORY_KIB };
        Self { environment, memory_kib, turns: Arc::new(Semaphore::new(cores.div_ceil(2))) }
    }

    /// The hash to store, in PHC form.
    pub async fn hash(&self, password: String) -> Result<String, Error> {
        check(&password)?;
        let mut salt = [0; 16];
        self.environment.entropy.fill(&mut salt);
        let memory = self.memory_kib;
        self.work(move || {
            Ok(argon2(memory)?.hash_password_with_salt(password.as_bytes(), &salt)?.to_string())
        })
        .await
    }

    /// Whether this is the password. Takes equally long when there is none to compare with.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Error> {
        if password.len() > MAX_LENGTH {
            return Ok(false);
        }
        let memory = self.memory_kib;
        self.work(move || {
            let Some(hash) = hash else {
                argon2(memory)?.hash_password_with_salt(password.as_bytes(), NO_SALT)?;
                return Ok(false);
            };
            let hash = PasswordHash::new(&hash).map_err(|_| argon2::password_hash::Error::Internal)?;
            match argon2(memory)?.verify_password(password.as_bytes(), &hash) {
                Ok(()) => Ok(true),
                Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
                Err(cause) => Err(cause),
            }
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, argon2::password_hash::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let failed = |cause: &dyn std::fmt::Display| Error::Hashing(cause.to_string());
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|cause| failed(&cause))?;
        let done = self.environment.calculate(move || {
            // Held by the work, not by the caller, who may give up waiting.
            let _turn = turn;
            job()
        });
        done.await.map_err(|cause| failed(&cause))?.map_err(|cause| failed(&cause))
    }
}

/// Whether somebody may have this password.
pub(super) fn check(password: &str) -> Result<(), Error> {
    if password.is_empty() {
        return Err(Error::WeakPassword("the password is empty".to_owned()));
    }
    if password.len() > MAX_LENGTH {
        return Err(Error::WeakPassword(format!("the password is longer than {MAX_LENGTH} bytes")));
    }
    Ok(())
}

fn argon2(memory_kib: u32) -> Result<Argon2<'static>, argon2::password_hash::Error> {
    let params =
        Params::new(memory_kib, PASSES, LANES, None).map_err(|_| argon2::password_hash::Error::Internal)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(Environment::real())
    }

    #[tokio::test]
    async fn only_the_password_matches_its_hash() {
        let passwords = passwords();
        let hash = passwords.hash("swordfish".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("swordfish".to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("Swordfish".to_owned(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("swordfish".to_owned(), None).await.unwrap());
    }

    #[tokio::test]
    async fn one_password_hashes_differently_each_time() {
        let passwords = passwords();
        let one = passwords.hash("swordfish".to_owned()).await.unwrap();
        assert_ne!(one, passwords.hash("swordfish".to_owned()).await.unwrap());
    }

    #[tokio::test]
    async fn empty_and_endless_passwords_are_refused() {
        for password in [String::new(), "x".repeat(MAX_LENGTH + 1)] {
            assert!(matches!(passwords().hash(password).await, Err(Error::WeakPassword(_))));
        }
    }
}
