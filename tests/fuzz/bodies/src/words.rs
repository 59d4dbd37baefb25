//! Inputs of several parts, which stay readable: lines.

/// The input as text, if it is one, cut at the first line ends into `N` parts. What isn't there is empty.
pub(crate) fn parts<const N: usize>(data: &[u8]) -> Option<[&str; N]> {
    let mut parts = std::str::from_utf8(data).ok()?.splitn(N, '\n');
    Some(std::array::from_fn(|_| parts.next().unwrap_or_default()))
}
