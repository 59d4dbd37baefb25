#[derive(Default)]
pub struct Typing;
impl Typing {
    pub fn since(&self, _: u64) -> Vec<(i64, Vec<ruma::OwnedUserId>)> {
        Vec::new()
    }
}
