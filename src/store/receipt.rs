use super::*;
use crate::queue::Counts;
pub struct ReceiptRow {
    pub user_id: String,
    pub kind: String,
    pub thread: String,
    pub event_id: String,
    pub ts: i64,
}
impl Store {
    pub async fn receipts_of_room(&self, _: i64) -> Result<Vec<ReceiptRow>, Error> {
        Ok(vec![])
    }
    pub async fn receipts_changed(&self, _: i64, _: &[i64]) -> Result<Vec<ReceiptRow>, Error> {
        Ok(vec![])
    }
    pub async fn unread(&self, _: i64, _: i64) -> Result<(Counts, i64), Error> {
        Ok((Counts::default(), 0))
    }
    pub async fn unread_by_thread(&self, _: i64, _: i64) -> Result<Vec<(String, Counts)>, Error> {
        Ok(vec![])
    }
    pub async fn unread_of_rooms(&self, _: i64) -> Result<std::collections::HashMap<i64, Counts>, Error> {
        Ok(Default::default())
    }
}
