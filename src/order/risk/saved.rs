//! The state of [`Risk`] as bytes. What follows from something else (sums over positions, who
//! holds what) is not saved but reckoned again, so that no image can contradict itself there.

use super::super::account::{Account, Holding, Rate};
use super::super::field::{Field, InstrumentId, Price};
use super::super::limits::Limits;
use super::checks::Reference;
use super::{At, Risk};
use crate::sequencer::{ClientId, ImageReader, ImageWriter, LoadError};

/// Bytes of a reference price, of a holding, and at least of a client.
const REFERENCE_BYTES: usize = 4 + 8 + 8;
const HOLDING_BYTES: usize = 4 + 5 * 8;
const CLIENT_BYTES_MIN: usize = 2 + 75 + 2 * 8 + 4 * 16 + 2 * 4 + 2 + 4;

/// More than any sum can be, and few enough bits to add some of them.
const SUM_MAX: u128 = 1 << 124;

impl Risk {
    /// Appends the state to a snapshot. Equal states append equal bytes, whatever the capacities.
    pub fn save(&self, out: &mut Vec<u8>) {
        let mut image = ImageWriter::new(out);
        image.u8(self.all_stopped.into());
        let known = |reference: &&Reference| (reference.price, reference.at_ns) != (Price(0), 0);
        image.u32(self.references.iter().filter(known).count() as u32);
        for (index, reference) in self.references.iter().enumerate() {
            if known(&reference) {
                image.u32(index as u32 + 1);
                image.i64(reference.price.0);
                image.u64(reference.at_ns);
            }
        }
        let used = |account: &&Account| **account != Account::default();
        image.u32(self.accounts.iter().filter(used).count() as u32);
        for (index, account) in self.accounts.iter().enumerate() {
            if used(&account) {
                image.u16(index as u16 + 1);
                save_account(account, &mut image);
                let row = index * self.references.len();
                image.u32(account.holdings);
                for &instrument in &self.lists[row..row + account.holdings as usize] {
                    image.u32(instrument + 1);
                    save_holding(&self.holdings[row + instrument as usize], &mut image);
                }
            }
        }
    }

    /// Replaces the state by a saved one. The capacities stay.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are no such state, contradict themselves, or name clients or
    /// instruments beyond the capacities; the state then stays.
    pub fn load(&mut self, image: &mut ImageReader<'_>) -> Result<(), LoadError> {
        let mut fresh = Self::new(self.accounts.len(), self.references.len());
        fresh.all_stopped = flag(image, "whether everybody is stopped")?;
        let mut last = 0;
        for _ in 0..image.count(REFERENCE_BYTES, "as many reference prices as are announced")? {
            let id = image.u32("the instrument of a reference price")?;
            let place = fresh.references.get_mut((id as usize).wrapping_sub(1));
            let place = place.filter(|_| id > last);
            let reference = place.ok_or(LoadError { what: "reference prices by instrument" })?;
            last = id;
            reference.price = Price(image.i64("a reference price")?);
            reference.at_ns = image.u64("the time of a reference price")?;
            let sound = reference.price.0 >= 0 && *reference != Reference::default();
            require(sound, "a reference price that is not negative")?;
        }
        let mut last = 0;
        for _ in 0..image.count(CLIENT_BYTES_MIN, "as many clients as are announced")? {
            let id = image.u16("a client's id")?;
            require(id > last, "clients in the order of their ids")?;
            last = id;
            fresh.load_client(ClientId(id), image)?;
            let account = fresh.account(ClientId(id));
            require(account != Some(&Account::default()), "clients that have anything")?;
        }
        *self = fresh;
        Ok(())
    }

    fn load_client(
        &mut self,
        client: ClientId,
        image: &mut ImageReader<'_>,
    ) -> Result<(), LoadError> {
        let account = load_account(image)?;
        let place = self.account_mut(client);
        *place.ok_or(LoadError { what: "a client within the capacity" })? = account;
        let mut open = [false; 2];
        for _ in 0..image.count(HOLDING_BYTES, "as many holdings as are announced")? {
            let id = InstrumentId(image.u32("the instrument of a holding")?);
            let at = self.at(client, id);
            let at = at.ok_or(LoadError { what: "a holding within the capacity" })?;
            let holding = load_holding(image)?;
            require(self.holdings[at.holding].is_flat(), "one holding of an instrument")?;
            open = [0, 1].map(|side| open[side] || holding.open[side] != 0);
            self.insert(at, holding);
        }
        let account = self.account(client).map_or([0; 2], |account| account.reserved);
        let sound = [0, 1].iter().all(|&side| open[side] || account[side] == 0);
        require(sound, "reservations of what is open")
    }

    fn insert(&mut self, at: At, holding: Holding) {
        self.enlist(at, holding.multiplier);
        let place = &mut self.holdings[at.holding];
        *place = Holding { slot: place.slot, ..holding };
        let account = &mut self.accounts[at.client];
        account.value += holding.value();
        account.held += holding.value().abs();
    }
}

fn require(condition: bool, what: &'static str) -> Result<(), LoadError> {
    if condition { Ok(()) } else { Err(LoadError { what }) }
}

fn flag(image: &mut ImageReader<'_>, what: &'static str) -> Result<bool, LoadError> {
    bool::from_wire(image.u8(what)?).ok_or(LoadError { what })
}

fn save_account(account: &Account, image: &mut ImageWriter<'_>) {
    account.limits.save(image);
    image.u64(account.rate.level);
    image.u64(account.rate.last_ns);
    image.i128(account.reserved[0]);
    image.i128(account.reserved[1]);
    image.i128(account.paid);
    image.i128(account.fees);
    image.u32(account.open_orders);
    image.u32(account.turn);
    image.u8(account.stopped.into());
    image.u8(account.breached.into());
}

fn load_account(image: &mut ImageReader<'_>) -> Result<Account, LoadError> {
    const SUMS: &str = "a client's sums";
    let limits = Limits::load(image)?;
    let rate =
        Rate { level: image.u64("a client's rate")?, last_ns: image.u64("a client's rate")? };
    let reserved = [image.i128(SUMS)?, image.i128(SUMS)?];
    let (paid, fees) = (image.i128(SUMS)?, image.i128(SUMS)?);
    let account = Account {
        limits,
        rate,
        reserved,
        paid,
        fees,
        open_orders: image.u32("how many orders a client has open")?,
        turn: image.u32("whose turn it is to be marked")?,
        stopped: flag(image, "whether a client is stopped")?,
        breached: flag(image, "whether a client broke its loss limit")?,
        ..Account::default()
    };
    require(rate.level <= Rate::LEVEL_MAX, "a client's rate within any limit")?;
    require(account.turn < u32::MAX, "whose turn it is to be marked")?;
    let sums = [reserved[0], reserved[1], paid, fees];
    require(sums.iter().all(|sum| sum.unsigned_abs() <= SUM_MAX), SUMS)?;
    require(reserved.iter().all(|&sum| sum >= 0), "reservations that are not negative")?;
    Ok(account)
}

fn save_holding(holding: &Holding, image: &mut ImageWriter<'_>) {
    image.i64(holding.position);
    image.u64(holding.open[0]);
    image.u64(holding.open[1]);
    image.i64(holding.unit);
    image.u64(holding.multiplier);
}

fn load_holding(image: &mut ImageReader<'_>) -> Result<Holding, LoadError> {
    const WHAT: &str = "a client's holding";
    let holding = Holding {
        position: image.i64(WHAT)?,
        open: [image.u64(WHAT)?, image.u64(WHAT)?],
        unit: image.i64(WHAT)?,
        multiplier: image.u64(WHAT)?,
        slot: 0,
    };
    require(!holding.is_flat() && holding.multiplier >= 1 && holding.unit >= 0, WHAT)?;
    let most = i128::from(i64::MAX);
    let extent = holding.extent();
    require(extent <= most && extent * i128::from(holding.unit) <= most, WHAT)?;
    Ok(holding)
}
