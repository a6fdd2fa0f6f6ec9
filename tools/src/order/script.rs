//! What a client says, line by line: orders for traders, and an operator's commands.

use std::time::Duration;

use gapless::order::messages::{
    CancelOrder, KillSwitch, ListOrders, MassCancel, Message, NewOrder, ReplaceOrder,
    SetMarketState, SetReference, SetVenue,
};
use gapless::order::{
    ClientOrderId, InstrumentId, MarketState, OrderId, OrderType, Price, Quantity, Side,
    TimeInForce,
};
use gapless::sequencer::ClientId;

use super::desk::Desk;
use super::names::Names;
use crate::units;

/// Shown with the long help of the client.
pub(super) const HELP: &str = "\
What may be said, a line each; # begins a remark:
  buy 10 AAPL @ 187.25            a limit order; behind it: ioc, fok, post
  sell 10 AAPL                    a market order
  cancel 3                        an order by its client's number; #17: by its order id
  cancel all                      all of one's own; or: cancel all AAPL
  list                            what is open; or: list AAPL
  replace 3 20 @ 187.30           another quantity and price
  open | halt | close AAPL        operators: whether it can be traded; or: all
  kill 2                          operators: stop a client, cancelling what is open; or: all
  release 2                       operators: and let go again
  reference AAPL 187.25           operators: the price that collars go by
  venue down | up [5ms]           operators: whether the exchange can be reached, its latency";

/// Reads a line. `None`: it says nothing.
pub(crate) fn parse(line: &str, desk: &Desk) -> Result<Option<Message>, String> {
    let (names, next) = (desk.names(), desk.next());
    // Without a space behind it, it may be the number of an order.
    let line = line.split_once(" # ").map_or(line, |(line, _)| line);
    if line.trim_start().starts_with('#') {
        return Ok(None);
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some((&verb, rest)) = words.split_first() else { return Ok(None) };
    match verb {
        "buy" => new_order(Side::Buy, rest, names, next),
        "sell" => new_order(Side::Sell, rest, names, next),
        "cancel" => cancel(rest, names),
        "list" => list(rest, names),
        "replace" => replace(rest, desk),
        "open" => market(MarketState::Open, rest, names),
        "halt" => market(MarketState::Halted, rest, names),
        "close" => market(MarketState::Closed, rest, names),
        "kill" => kill(true, rest),
        "release" => kill(false, rest),
        "reference" => match rest {
            [symbol, price] => {
                let named = names.find(symbol)?;
                let price = named.price(price)?;
                Ok(SetReference { price, instrument: named.id }.into())
            }
            _ => Err("expected: reference AAPL 187.25".into()),
        },
        "venue" => venue(rest),
        _ => Err(format!("{verb}: no such command; buy, sell, cancel, list, replace, open, …")),
    }
    .map(Some)
}

fn quantity(text: &str) -> Result<Quantity, String> {
    let wrong = |_| format!("{text}: expected a quantity, a whole number");
    text.parse().map(Quantity).map_err(wrong)
}

fn new_order(
    side: Side,
    words: &[&str],
    names: &Names,
    client_order_id: ClientOrderId,
) -> Result<Message, String> {
    let usage = "expected: buy 10 AAPL @ 187.25, and behind it, if wanted: ioc, fok, post";
    let [amount, symbol, rest @ ..] = words else { return Err(usage.into()) };
    let named = names.find(symbol)?;
    let (price, rest) = match rest {
        ["@", price, rest @ ..] => (Some(named.price(price)?), rest),
        rest => (None, rest),
    };
    let order_type = if price.is_some() { OrderType::Limit } else { OrderType::Market };
    let mut order = NewOrder {
        client_order_id,
        price: price.unwrap_or(Price(0)),
        quantity: quantity(amount)?,
        instrument: named.id,
        side,
        order_type,
        time_in_force: if price.is_some() { TimeInForce::Day } else { TimeInForce::Ioc },
        post_only: false,
    };
    for word in rest {
        match *word {
            "day" => order.time_in_force = TimeInForce::Day,
            "ioc" => order.time_in_force = TimeInForce::Ioc,
            "fok" => order.time_in_force = TimeInForce::Fok,
            "post" => order.post_only = true,
            _ => return Err(usage.into()),
        }
    }
    Ok(order.into())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text}: expected the number of an order"))
}

fn cancel(words: &[&str], names: &Names) -> Result<Message, String> {
    match words {
        ["all"] => Ok(MassCancel { instrument: InstrumentId(0) }.into()),
        ["all", symbol] => Ok(MassCancel { instrument: names.find(symbol)?.id }.into()),
        [order] => {
            let (client_order_id, order_id) = match order.strip_prefix('#') {
                Some(id) => (ClientOrderId(0), OrderId(number(id)?)),
                None => (ClientOrderId(number(order)?), OrderId(0)),
            };
            Ok(CancelOrder { client_order_id, order_id }.into())
        }
        _ => Err("expected: cancel 3, cancel #17, cancel all, or cancel all AAPL".into()),
    }
}

fn list(words: &[&str], names: &Names) -> Result<Message, String> {
    match words {
        [] => Ok(ListOrders { instrument: InstrumentId(0) }.into()),
        [symbol] => Ok(ListOrders { instrument: names.find(symbol)?.id }.into()),
        _ => Err("expected: list, or list AAPL".into()),
    }
}

fn replace(words: &[&str], desk: &Desk) -> Result<Message, String> {
    let (original, amount, price) = match words {
        [original, amount, "@", price] | [original, amount, price] => (original, amount, price),
        _ => return Err("expected: replace 3 20 @ 187.30".into()),
    };
    let original = ClientOrderId(number(original)?);
    let of = desk.instrument_of(original);
    let of = of.ok_or_else(|| format!("{original}: no such order of yours is open"))?;
    let price = of.price(price)?;
    let (client_order_id, quantity) = (desk.next(), quantity(amount)?);
    Ok(ReplaceOrder { client_order_id, original, price, quantity }.into())
}

fn market(state: MarketState, words: &[&str], names: &Names) -> Result<Message, String> {
    let instrument = match words {
        ["all"] => InstrumentId(0),
        [symbol] => names.find(symbol)?.id,
        _ => return Err("expected one symbol, or all".into()),
    };
    Ok(SetMarketState { instrument, state }.into())
}

fn kill(engaged: bool, words: &[&str]) -> Result<Message, String> {
    let client = match words {
        ["all"] => ClientId::NONE,
        [id] => {
            let wrong = || format!("{id}: expected the number of a client, or all");
            ClientId(id.parse().ok().filter(|&id| id > 0).ok_or_else(wrong)?)
        }
        _ => return Err("expected one client's number, or all".into()),
    };
    Ok(KillSwitch { client, engaged, cancel_open: engaged }.into())
}

fn venue(words: &[&str]) -> Result<Message, String> {
    let usage = || "expected: venue up, venue down, or venue up 5ms".to_owned();
    let (state, latency) = match words {
        [state] => (*state, Duration::ZERO),
        [state, latency] => (*state, units::duration(latency)?),
        _ => return Err(usage()),
    };
    let connected = match state {
        "up" => true,
        "down" => false,
        _ => return Err(usage()),
    };
    let latency_ns = u64::try_from(latency.as_nanos()).map_err(|_| usage())?;
    Ok(SetVenue { latency_ns, connected }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::names::tests::{define, record};
    use gapless::sequencer::Kind;

    /// Of client 1, which has used its numbers up to 4.
    fn desk() -> Desk {
        let mut desk = Desk::new(ClientId(1));
        desk.learn(&record(1, Kind::Command, 1, &define(7, "AAPL", -2).encode()));
        let order = order().encode();
        desk.learn(&record(2, Kind::Command, 1, &order));
        desk
    }

    fn order() -> NewOrder {
        NewOrder {
            client_order_id: ClientOrderId(4),
            price: Price(18725),
            quantity: Quantity(10),
            instrument: InstrumentId(7),
            side: Side::Buy,
            order_type: OrderType::Limit,
            time_in_force: TimeInForce::Day,
            post_only: false,
        }
    }

    fn say(line: &str) -> Result<Option<Message>, String> {
        parse(line, &desk())
    }

    #[test]
    fn orders_are_understood() {
        let order = NewOrder { client_order_id: ClientOrderId(5), ..order() };
        assert_eq!(say("buy 10 AAPL @ 187.25"), Ok(Some(order.into())));
        let ioc = NewOrder { time_in_force: TimeInForce::Ioc, side: Side::Sell, ..order };
        assert_eq!(say(" sell 10 AAPL @ 187.25 ioc # now"), Ok(Some(ioc.into())));
        let post = NewOrder { post_only: true, ..order };
        assert_eq!(say("buy 10 7 @ 187.25 post"), Ok(Some(post.into())));
        let price = Price(0);
        let market = NewOrder { price, order_type: OrderType::Market, ..ioc };
        assert_eq!(say("sell 10 AAPL"), Ok(Some(market.into())));
        assert_eq!((say(""), say("  # buy")), (Ok(None), Ok(None)));
        let by_id = CancelOrder { client_order_id: ClientOrderId(0), order_id: OrderId(17) };
        assert_eq!(say("cancel #17"), Ok(Some(by_id.into())));
        let all = MassCancel { instrument: InstrumentId(7) };
        assert_eq!(say("cancel all AAPL"), Ok(Some(all.into())));
        let list = ListOrders { instrument: InstrumentId(0) };
        assert_eq!(say("list"), Ok(Some(list.into())));
    }

    #[test]
    fn operators_are_understood() {
        let client = ClientId(2);
        let killed = KillSwitch { client, engaged: true, cancel_open: true };
        assert_eq!(say("kill 2"), Ok(Some(killed.into())));
        let state = MarketState::Halted;
        let halted = SetMarketState { instrument: InstrumentId(0), state };
        assert_eq!(say("halt all"), Ok(Some(halted.into())));
        let down = SetVenue { latency_ns: 5_000_000, connected: false };
        assert_eq!(say("venue down 5ms"), Ok(Some(down.into())));
        let price = Price(18700);
        let reference = SetReference { price, instrument: InstrumentId(7) };
        assert_eq!(say("reference AAPL 187"), Ok(Some(reference.into())));
    }

    #[test]
    fn nonsense_says_what_would_be_right() {
        for (line, part) in [
            ("by 10 AAPL", "no such command"),
            ("buy AAPL", "expected: buy"),
            ("buy ten AAPL", "ten: expected a quantity"),
            ("buy 10 AAPL @ 1.234", "no whole number"),
            ("buy 10 AAPL @ 1.23 soon", "ioc, fok, post"),
            ("buy 10 MSFT", "there are AAPL"),
            ("replace 3 20 @ 1.23", "no such order of yours"),
            ("kill 0", "number of a client"),
            ("venue sideways", "venue up"),
        ] {
            let error = say(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
