//! Signed requests between servers: the `X-Matrix` authorization header, written, read and verified.
//!
//! Owns what of a request is signed, and the header's grammar. It finds no keys and sends nothing; which key is right is
//! told by whoever calls [`Authorization::verify`].
//!
//! Specification: [Request
//! Authentication](https://spec.matrix.org/v1.19/server-server-api/#request-authentication) (FA-01 to FA-05).

use ruma::{OwnedServerName, ServerName};

use crate::{
    json::{self, JsonError, write_string},
    limits::MAX_FIELD_BYTES,
    signature::is_signature,
    signing_key::SigningKey,
};

/// The name of the scheme, which is compared without regard to case.
pub const SCHEME: &str = "X-Matrix";

/// Bytes of a header past which it isn't parsed. The four values together are at most some 800.
const MAX_HEADER_BYTES: usize = 4096;

/// What is signed of a request.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// `GET`, `PUT`, …, in capitals.
    pub method: &'a str,
    /// The target as it stands in the request line: path and query, percent-encoded, without scheme and host.
    pub uri: &'a str,
    /// Who sends it, by its server name from before delegation.
    pub origin: &'a ServerName,
    /// Whom it is sent to, by its server name from before delegation.
    pub destination: &'a ServerName,
    /// The body's JSON; `None` for a request without a body.
    pub content: Option<&'a str>,
}

impl SignedRequest<'_> {
    /// The canonical JSON that the signature covers. `content` is left out where there is none (FA-05).
    fn text(&self) -> Result<String, JsonError> {
        Ok(self.text_over(self.content.map(json::canonical).transpose()?.as_deref()))
    }

    /// The same, with the content as it stands.
    fn text_over(&self, content: Option<&str>) -> String {
        let mut text = String::with_capacity(content.map_or(0, str::len) + 256);
        text.push('{');
        if let Some(content) = content {
            text.push_str("\"content\":");
            text.push_str(content);
            text.push(',');
        }
        for (key, value) in [
            ("\"destination\":", self.destination.as_str()),
            (",\"method\":", self.method),
            (",\"origin\":", self.origin.as_str()),
            (",\"uri\":", self.uri),
        ] {
            text.push_str(key);
            write_string(&mut text, value);
        }
        text.push('}');
        text
    }

    /// The value of the request's `Authorization` header, in the form that old servers can read too (FA-04).
    ///
    /// Fails if the content isn't JSON.
    pub fn sign(&self, key: &SigningKey) -> Result<String, JsonError> {
        // Server names, key ids and base64 hold neither quotes nor backslashes.
        Ok(format!(
            r#"{SCHEME} origin="{}",destination="{}",key="{}",sig="{}""#,
            self.origin,
            self.destination,
            key.id(),
            key.sign(self.text()?.as_bytes()),
        ))
    }
}

/// Why a request isn't what it says it is. All of them are answered with 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationError {
    /// The header is of another scheme.
    #[error("the authorization scheme isn't {SCHEME}")]
    Scheme,
    /// The header doesn't follow the grammar.
    #[error("the X-Matrix header is malformed: {0}")]
    Syntax(&'static str),
    /// A parameter is missing, or isn't what it should be.
    #[error("the `{0}` of the X-Matrix header is missing or invalid")]
    Parameter(&'static str),
    /// It was meant for another server.
    #[error("the request is signed for {0}")]
    Destination(OwnedServerName),
    /// The body isn't JSON.
    #[error("the body can't have been signed: {0}")]
    Content(#[from] JsonError),
    /// The signature isn't by that key, or isn't over this request.
    #[error("the signature of the request is wrong")]
    Signature,
}

/// An `X-Matrix` header as it was sent: nothing in it is to be believed before [`Authorization::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Who says that it sends the request.
    pub origin: OwnedServerName,
    /// Whom it says that it sends it to. Servers from before v1.3 don't.
    pub destination: Option<OwnedServerName>,
    /// Which of the sender's keys signed it: `ed25519:…`.
    pub key_id: String,
    /// In base64.
    pub signature: String,
}

impl Authorization {
    /// Read the value of a header (FA-02). A request may have several; each is tried alone.
    pub fn parse(header: &str) -> Result<Self, AuthorizationError> {
        if header.len() > MAX_HEADER_BYTES {
            return Err(AuthorizationError::Syntax("it is too long"));
        }
        let (scheme, parameters) = header.split_once(' ').ok_or(AuthorizationError::Scheme)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(AuthorizationError::Scheme);
        }
        let [mut origin, mut destination, mut key, mut sig] = [const { None }; 4];
        for parameter in Parameters(parameters) {
            let (name, value) = parameter?;
            // Any other parameter is ignored. The specification's list calls the last one `signature`, its example `sig`.
            let place = match name.to_ascii_lowercase().as_str() {
                "origin" => &mut origin,
                "destination" => &mut destination,
                "key" => &mut key,
                "sig" | "signature" => &mut sig,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(AuthorizationError::Syntax("a parameter is given twice"));
            }
        }
        let server = |value: String, name| {
            OwnedServerName::try_from(value).map_err(|_| AuthorizationError::Parameter(name))
        };
        Ok(Self {
            origin: server(origin.ok_or(AuthorizationError::Parameter("origin"))?, "origin")?,
            destination: destination.map(|value| server(value, "destination")).transpose()?,
            key_id: key
                .filter(|id| id.starts_with("ed25519:") && id.len() <= MAX_FIELD_BYTES)
                .ok_or(AuthorizationError::Parameter("key"))?,
            signature: sig.ok_or(AuthorizationError::Parameter("sig"))?,
        })
    }

    /// Whether it is meant for us (FA-03). One that names nobody is: what it signed names us, or the signature is wrong.
    pub fn check_destination(&self, us: &ServerName) -> Result<(), AuthorizationError> {
        match &self.destination {
            Some(destination) if destination != us => {
                Err(AuthorizationError::Destination(destination.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Check that the request was sent to us by [`Authorization::origin`], whose key `public_key` is.
    ///
    /// `method`, `uri` and `content` are as in [`SignedRequest`]; an empty body is none.
    pub fn verify(
        &self,
        us: &ServerName,
        method: &str,
        uri: &str,
        content: Option<&str>,
        public_key: &[u8; 32],
    ) -> Result<(), AuthorizationError> {
        self.check_destination(us)?;
        let request = SignedRequest { method, uri, origin: &self.origin, destination: us, content };
        let is_right = |text: &str| is_signature(&self.signature, public_key, text);
        // Mostly it is canonical as it is. Then it needn't be read, and an event in it that can't be read, such as one that
        // is nested too deep, spoils nothing else that comes with it.
        if is_right(&request.text_over(content)) || (content.is_some() && is_right(&request.text()?)) {
            Ok(())
        } else {
            Err(AuthorizationError::Signature)
        }
    }
}

/// The `name=value` pairs of a header, after RFC 9110 sections 5.6.1 and 11.2; empty ones are skipped.
struct Parameters<'h>(&'h str);

impl<'h> Iterator for Parameters<'h> {
    type Item = Result<(&'h str, String), AuthorizationError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
        if self.0.is_empty() {
            return None;
        }
        let parameter = self.parameter();
        if parameter.is_err() {
            self.0 = "";
        }
        Some(parameter)
    }
}

impl<'h> Parameters<'h> {
    fn parameter(&mut self) -> Result<(&'h str, String), AuthorizationError> {
        const NO_VALUE: AuthorizationError = AuthorizationError::Syntax("a parameter has no value");
        let (name, rest) = self.0.split_once('=').ok_or(NO_VALUE)?;
        let name = name.trim_end_matches([' ', '\t']);
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return Err(AuthorizationError::Syntax("a parameter has a name that isn't one"));
        }
        let rest = rest.trim_start_matches([' ', '\t']);
        let (value, rest) = if let Some(rest) = rest.strip_prefix('"') {
            quoted(rest)?
        } else {
            let end = rest.find([' ', '\t', ',']).unwrap_or(rest.len());
            let (value, rest) = rest.split_at(end);
            // Old servers leave colons unquoted, some more than these; only what would be ambiguous is refused.
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
                return Err(NO_VALUE);
            }
            (value.to_owned(), rest)
        };
        self.0 = rest.trim_start_matches([' ', '\t']);
        if self.0.is_empty() || self.0.starts_with(',') {
            Ok((name, value))
        } else {
            Err(AuthorizationError::Syntax("there is no comma after a value"))
        }
    }
}

/// The value of a quoted string whose opening quote is gone, and what follows the closing one.
fn quoted(text: &str) -> Result<(String, &str), AuthorizationError> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    Err(AuthorizationError::Syntax("a quote isn't closed"))
}

/// RFC 9110, section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
