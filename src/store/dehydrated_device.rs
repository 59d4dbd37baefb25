//! The table `dehydrated_device`: which of a user's devices is one that nobody is logged in on, and what its user needs to
//! bring it to life.

use super::{Error, Statement, Store, statement};

/// A user's dehydrated device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DehydratedRow {
    /// The device's number.
    pub device: i64,
    pub device_id: String,
    /// A JSON object.
    pub data: String,
}

/// A device that will never ask for anything.
#[derive(Clone, Debug)]
pub struct NewDevice<'a> {
    pub recipient: i64,
    /// Its number: the one after [`Store::last_device`].
    pub device: i64,
    pub device_id: &'a str,
    pub display_name: Option<String>,
    pub now: i64,
}

/// A device of a number that was found out before. Conflicts if the number was given out meanwhile, if the user has a device
/// of that name, and if there is no such account any more.
pub fn add_silent_device(new: NewDevice<'_>) -> [Statement; 2] {
    [
        statement!("UPDATE counter SET value = $1 WHERE name = 'device' AND value = $1 - 1", new.device,)
            .expecting(1),
        // It stands at the end of all queues: nothing is kept for it.
        statement!(
            "INSERT INTO device (recipient, device_id, id, display_name, created_ts, position)
             SELECT recipient, $2, $3, $4, $5, $6 FROM account
             WHERE recipient = $1 AND deactivated_ts IS NULL",
            new.recipient,
            new.device_id,
            new.device,
            new.display_name,
            new.now,
            i64::MAX,
        )
        .expecting(1),
    ]
}

/// Makes a device the user's dehydrated one, after another or after none. Conflicts if it was after something else.
pub fn set_dehydrated(recipient: i64, device: i64, data: &str, before: Option<i64>) -> Statement {
    let statement = match before {
        Some(before) => statement!(
            "UPDATE dehydrated_device SET device = $2, data = $3 WHERE recipient = $1 AND device = $4",
            recipient,
            device,
            data,
            before,
        ),
        None => statement!(
            "INSERT INTO dehydrated_device (recipient, device, data) VALUES ($1, $2, $3)",
            recipient,
            device,
            data,
        ),
    };
    statement.expecting(1)
}

impl Store {
    pub async fn dehydrated_device(&self, recipient: i64) -> Result<Option<DehydratedRow>, Error> {
        let row: Option<(i64, String, String)> = self
            .optional(statement!(
                "SELECT d.id, d.device_id, s.data
                 FROM dehydrated_device s JOIN device d ON d.id = s.device WHERE s.recipient = $1",
                recipient,
            ))
            .await?;
        Ok(row.map(|(device, device_id, data)| DehydratedRow { device, device_id, data }))
    }
}
