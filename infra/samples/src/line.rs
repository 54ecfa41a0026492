//! The truth behind a pack: items, ranging, promotions, sales and stock, simulated week by week.
//!
//! Owns what the files agree on. Refuses presentation: formats, headings and most of the planted mistakes are made where
//! a file is written; planted here is what the market itself did (stock that ran out, a void, a tail).

use time::macros::date;
use time::{Date, Duration};

use crate::catalogue::{Brand, Catalogue, ITEMS_PER_BRAND, WEEKS};
use crate::random::Random;

/// The first week's last day, a Saturday.
const FIRST_WEEK: Date = date!(2025 - 07 - 05);
/// Weeks at the end without stock, for the planted items and stores.
pub(crate) const EMPTY_WEEKS: usize = 3;
/// Weeks at the end without a sale, for the planted void.
pub(crate) const VOID_WEEKS: usize = 10;
/// How many items of a brand are promoted.
const PROMOTED: usize = 3;

pub(crate) struct Line {
    pub(crate) of: &'static Catalogue,
    pub(crate) items: Vec<Item>,
    pub(crate) weeks: Vec<Date>,
    /// Item by store.
    pub(crate) ranged: Vec<Vec<bool>>,
    pub(crate) promos: Vec<Promo>,
    pub(crate) sales: Vec<Sale>,
}

pub(crate) struct Item {
    pub(crate) code: u32,
    pub(crate) name: String,
    pub(crate) brand: &'static Brand,
    pub(crate) segment: &'static str,
    pub(crate) size: u32,
    /// Cents.
    pub(crate) price: i64,
    pub(crate) cost: i64,
    pub(crate) facings: u32,
    pub(crate) width_cm: u32,
    /// Units a week in a store of size 1.
    base: f64,
}

impl Item {
    /// Eight digits, the first a zero.
    pub(crate) fn code(&self) -> String {
        format!("{:08}", self.code)
    }

    /// What the shelf of one store holds.
    pub(crate) fn capacity(&self) -> u32 {
        self.facings * 8
    }
}

/// Two weeks at a lower price.
pub(crate) struct Promo {
    pub(crate) item: usize,
    pub(crate) first_week: usize,
    pub(crate) price: i64,
    pub(crate) funding: i64,
    lift: f64,
}

impl Promo {
    pub(crate) const WEEKS: usize = 2;

    fn covers(&self, item: usize, week: usize) -> bool {
        self.item == item && (self.first_week..self.first_week + Self::WEEKS).contains(&week)
    }
}

/// One item in one store in one week, with at least one unit sold.
#[derive(Clone, Copy)]
pub(crate) struct Sale {
    pub(crate) item: usize,
    pub(crate) store: usize,
    pub(crate) week: usize,
    pub(crate) units: i64,
    pub(crate) price: i64,
    pub(crate) promoted: bool,
}

impl Line {
    pub(crate) fn simulate(of: &'static Catalogue) -> Self {
        let mut random = Random::new(of.seed);
        let items: Vec<Item> = (0..of.brands.len() * ITEMS_PER_BRAND).map(|index| item(of, index)).collect();
        let ranged = (0..items.len()).map(|index| ranging(of, index, &mut random)).collect();
        let promos = promotions(of, &items, &mut random);
        let weeks = (0..WEEKS).map(|week| FIRST_WEEK + Duration::weeks(week as i64)).collect();
        let mut line = Self { of, items, weeks, ranged, promos, sales: Vec::new() };
        line.sales = line.sell(&mut random);
        line
    }

    fn sell(&self, random: &mut Random) -> Vec<Sale> {
        let mut sales = Vec::new();
        for (week, ending) in self.weeks.iter().enumerate() {
            let season = self.of.season[usize::from(u8::from(ending.month())) - 1];
            for (store, place) in self.of.stores.iter().enumerate() {
                for (item, it) in self.items.iter().enumerate().filter(|(item, _)| self.ranged[*item][store]) {
                    let promo = self.promos.iter().find(|promo| promo.covers(item, week));
                    let lift = promo.map_or(1.0, |promo| promo.lift);
                    let expected = it.base * place.size * season * lift * random.between(0.75, 1.25);
                    let units = (expected + random.unit()) as i64;
                    if units == 0 || self.is_empty(item, store, week) || self.is_void(item, store, week) {
                        continue;
                    }
                    let price = promo.map_or(it.price, |promo| promo.price);
                    sales.push(Sale { item, store, week, units, price, promoted: promo.is_some() });
                }
            }
        }
        sales
    }

    /// Out of stock by plan.
    pub(crate) fn is_empty(&self, item: usize, store: usize, week: usize) -> bool {
        let plants = &self.of.plants;
        week + EMPTY_WEEKS >= WEEKS && plants.out_of_stock.contains(&item) && plants.empty_stores.contains(&store)
    }

    fn is_void(&self, item: usize, store: usize, week: usize) -> bool {
        week + VOID_WEEKS >= WEEKS && self.of.plants.void == (item, store)
    }

    /// Units sold of an item in a store in a week.
    pub(crate) fn units(&self, item: usize, store: usize, week: usize) -> i64 {
        let same = |sale: &&Sale| (sale.item, sale.store, sale.week) == (item, store, week);
        self.sales.iter().find(same).map_or(0, |sale| sale.units)
    }

    /// What the retailer bought from a brand's vendor in the year, at cost, in cents.
    pub(crate) fn purchases(&self, brand: &Brand) -> i64 {
        let of_brand = |sale: &&Sale| self.items[sale.item].brand.name == brand.name;
        self.sales.iter().filter(of_brand).map(|sale| sale.units * self.items[sale.item].cost).sum()
    }

    /// What a brand's vendor paid towards promotions in the year, in cents.
    pub(crate) fn funding(&self, brand: &Brand) -> i64 {
        let of_brand = |promo: &&Promo| self.items[promo.item].brand.name == brand.name;
        let paid = |promo: &Promo| {
            let units: i64 =
                self.sales.iter().filter(|sale| promo.covers(sale.item, sale.week)).map(|sale| sale.units).sum();
            units * promo.funding
        };
        self.promos.iter().filter(of_brand).map(paid).sum()
    }
}

fn item(of: &'static Catalogue, index: usize) -> Item {
    let brand = &of.brands[index / ITEMS_PER_BRAND];
    let place = index % ITEMS_PER_BRAND;
    let variant = (index / ITEMS_PER_BRAND * 3 + place) % of.variants.len();
    let size = of.sizes[(index / ITEMS_PER_BRAND + place) % of.sizes.len()];
    // The second half of a size's price follows the size, the first does not: larger is cheaper per unit.
    let scale = 0.5 + 0.5 * f64::from(size) / f64::from(of.sizes[0]);
    let price = (of.base_price * brand.price * scale) as i64 / 10 * 10 + 9;
    let pull = [1.3, 1.0, 0.8, 0.6, 0.45][place];
    let base = match index {
        _ if index == of.plants.under_ranged => of.base_units * 1.7,
        _ if index == of.plants.tail => of.base_units * 0.03,
        _ => of.base_units * brand.pull * pull,
    };
    Item {
        code: of.code_base + 11 * index as u32,
        name: format!("{} {} {}{}", brand.name, of.variants[variant], size, of.unit.name),
        brand,
        segment: of.segments[variant % of.segments.len()],
        size,
        price,
        cost: (price as f64 * (1.0 - brand.margin)) as i64,
        facings: if pull >= 1.0 { 4 } else { 2 },
        width_cm: 18 + (size % 7) * 2,
        base,
    }
}

/// The best of a brand is carried everywhere, the rest where there is room.
fn ranging(of: &Catalogue, index: usize, random: &mut Random) -> Vec<bool> {
    let plants = &of.plants;
    let needs = [0.0, 0.3, 0.55, 0.7, 0.85][index % ITEMS_PER_BRAND];
    let carried = |(store, place): (usize, &crate::catalogue::Store)| {
        let room = place.size * random.between(0.8, 1.2) >= needs;
        let planted = plants.out_of_stock.contains(&index) && plants.empty_stores.contains(&store);
        match index {
            _ if index == plants.under_ranged => [0, 3, 6, 9].contains(&store),
            _ if index == plants.tail => true,
            _ => room || planted || plants.void == (index, store),
        }
    };
    of.stores.iter().enumerate().map(carried).collect()
}

/// Three or four a year for each promoted item; the own brand keeps its price all year.
fn promotions(of: &Catalogue, items: &[Item], random: &mut Random) -> Vec<Promo> {
    let mut promos = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if item.brand.own || index % ITEMS_PER_BRAND >= PROMOTED || index == of.plants.tail {
            continue;
        }
        let mut first_week = 1 + random.below(8);
        while first_week + Promo::WEEKS <= WEEKS - VOID_WEEKS {
            let price = item.price * 78 / 100 / 10 * 10 + 9;
            let lift = random.between(1.5, 2.4);
            promos.push(Promo { item: index, first_week, price, funding: (item.price - price) / 2, lift });
            first_week += 10 + random.below(6);
        }
    }
    promos
}
