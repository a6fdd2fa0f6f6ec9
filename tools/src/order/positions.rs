//! `gapless order positions`: what each client holds and what it made, folded from the stream.

use std::time::{Duration, Instant};

use gapless::order::Positions;

use super::decimal;
use super::source::Source;
use crate::exit::Outcome;
use crate::stop::Stop;
use crate::table::{Cell, Table, print_json};
use crate::units;

/// Tell each client's positions, profits and fees
///
/// From the stream's fills alone, by a computation of its own: nothing of the engine's is asked.
/// Open profit is at the last price, a trade's or the reference. With --follow, again and again
/// while it changes.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless order positions log:/var/log/orders
  gapless order positions shm:sequenced --follow --every 500ms --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// With --follow: so often, if anything has changed
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "1s")]
    every: Duration,
    /// One JSON array a time
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    let fold = std::cell::RefCell::new((Positions::new(), Instant::now(), String::new()));
    let read = args.source.read(
        &stop,
        |record| {
            let (positions, ..) = &mut *fold.borrow_mut();
            if let Err(anomaly) = positions.apply(record) {
                eprintln!("gapless: {anomaly}");
            }
            Ok(())
        },
        || {
            let (positions, told_at, told) = &mut *fold.borrow_mut();
            if args.source.follows() && told_at.elapsed() >= args.every {
                *told_at = Instant::now();
                tell(positions, told, args.json)?;
            }
            Ok(())
        },
    )?;
    let (positions, _, mut told) = fold.into_inner();
    tell(&positions, &mut told, args.json)?;
    Ok(Outcome::wrong_if(read.missed + positions.anomalies().total() > 0))
}

/// Prints the table, unless it was `told` already.
fn tell(positions: &Positions, told: &mut String, json: bool) -> anyhow::Result<()> {
    let table = table(positions);
    let text = table.json().to_string();
    if *told == text {
        return Ok(());
    }
    *told = text;
    match (json, table.is_empty()) {
        (true, _) => print_json(&table.json())?,
        (false, true) => println!("no positions"),
        (false, false) => table.print()?,
    }
    Ok(())
}

fn table(positions: &Positions) -> Table {
    let mut table = Table::new(&[
        ("client", "client"),
        ("instrument", "instrument"),
        ("symbol", "symbol"),
        ("quantity", "holds"),
        ("average_price", "at"),
        ("mark", "last price"),
        ("realised", "realised"),
        ("open_profit", "open"),
        ("fees", "fees"),
        ("bought", "bought"),
        ("sold", "sold"),
        ("fills", "fills"),
    ]);
    for (client, id, position) in positions.iter() {
        let listed = positions.instrument(id);
        let exponent = listed.map_or(0, |listed| listed.price_exponent);
        let multiplier = listed.map_or(1, |listed| listed.multiplier);
        let number = |value: i64| Cell::with(decimal::text(value, exponent), value);
        let known = |value: Option<i64>| value.map_or_else(Cell::none, number);
        table.row(vec![
            Cell::count(client.0.into()),
            Cell::count(id.0.into()),
            listed.map_or_else(Cell::none, |listed| Cell::text(listed.symbol.as_str())),
            Cell::with(position.quantity.to_string(), position.quantity),
            known(position.average_price(multiplier).map(|price| price.0)),
            known(listed.and_then(|listed| listed.mark).map(|price| price.0)),
            number(position.realised.0),
            known(positions.open_profit(client, id).map(|money| money.0)),
            number(position.fees.0),
            Cell::count(position.bought.0),
            Cell::count(position.sold.0),
            Cell::count(position.fills),
        ]);
    }
    table
}
