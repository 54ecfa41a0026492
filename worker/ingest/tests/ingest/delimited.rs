//! Delimited text as people export it.

use carrel_ingest::{Encoding, Format, IngestError, Kind, Limits, NoteCode, Source, Unit, Why, read_bytes};

use crate::{csv, kinds, only_table, shown};

fn utf16(text: &str, big_endian: bool) -> Vec<u8> {
    let unit = |unit: u16| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() };
    std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(unit).collect()
}

#[test]
fn types_are_decided_over_the_whole_column() {
    let text = "sku,units,price,day,promo,name,empty\n\
                0012,1,2.50,2026-01-31,Y,Pizza,\n\
                0345,2,3,2026-02-28,N,12 inch,\n";
    let document = csv(text);
    let table = only_table(&document);
    assert_eq!(
        kinds(table),
        [
            ("sku", Kind::Code),
            ("units", Kind::Integer),
            ("price", Kind::Decimal),
            ("day", Kind::Date),
            ("promo", Kind::Boolean),
            ("name", Kind::Text),
            ("empty", Kind::Empty),
        ]
    );
    assert_eq!(shown(table, "sku"), ["0012", "0345"]);
    assert_eq!(shown(table, "day"), ["day 20484", "day 20512"]);
    assert_eq!((table.header_row, table.rows, table.row_number(1)), (Some(1), 2, 3));
}

#[test]
fn every_delimiter_is_found() {
    for delimiter in [",", ";", "\t", "|"] {
        let text = "a,b,c\n1,x,2\n3,\"y\nz\",4\n".replace(',', delimiter);
        let document = csv(&text);
        let table = only_table(&document);
        assert_eq!(shown(table, "b"), ["x", "y\nz"], "{delimiter:?}");
        assert_eq!(
            table.source,
            Source::Delimited { encoding: Encoding::Utf8, delimiter: delimiter.chars().next().unwrap() }
        );
    }
}

#[test]
fn decimal_commas_do_not_pass_for_delimiters() {
    let document = csv("code;on_hand;value\n01;71;225,78\n02;60;1.208,20\n03;5;15,50\n");
    let table = only_table(&document);
    assert_eq!(shown(table, "value"), ["225.78", "1208.2", "15.5"]);
    assert_eq!(shown(table, "on_hand"), ["71", "60", "5"]);
}

#[test]
fn every_encoding_gives_the_same_text() {
    let text = "name,units\nSeñor Forno,1\nCafé,2\n";
    let windows: Vec<u8> = text.chars().map(|char| u8::try_from(u32::from(char)).expect("Latin-1")).collect();
    for (bytes, encoding) in [
        (text.as_bytes().to_vec(), Encoding::Utf8),
        (["\u{feff}", text].concat().into_bytes(), Encoding::Utf8),
        (utf16(text, false), Encoding::Utf16Le),
        (utf16(text, true), Encoding::Utf16Be),
        (utf16(text, false)[2..].to_vec(), Encoding::Utf16Le),
        (windows, Encoding::Windows1252),
    ] {
        let document = csv(&bytes);
        let table = only_table(&document);
        assert_eq!(table.source, Source::Delimited { encoding, delimiter: ',' });
        assert_eq!(shown(table, "name"), ["Señor Forno", "Café"]);
        let noted = document.notes.iter().any(|note| note.code == NoteCode::Encoding);
        assert_eq!(noted, encoding == Encoding::Windows1252 || bytes.first() == Some(&b'n') && bytes[1] == 0);
    }
}

#[test]
fn a_character_cut_in_two_by_a_read_is_still_utf8() {
    let mut text = "name,units\n".to_owned();
    while text.len() < 200_000 {
        text.push_str("é,1\nxé,2\n");
    }
    let document = csv(&text);
    assert!(document.notes.is_empty(), "{:?}", document.notes);
    assert!(shown(only_table(&document), "name").iter().all(|name| name == "é" || name == "xé"));
}

#[test]
fn lines_before_the_header_and_totals_after_the_data_are_kept_out_and_told() {
    let text = "Frozen Pizza - total market\n\"Synthetic data: retailers, brands.\"\nPeriod: 52 weeks\n\"\"\n\
                segment,brand,sales,units\nClassic,Forno,\"3,715,610\",752300\nPremium,Forno,\"3,526,026\",713914\n\
                Total,,\"7,241,636\",1466214\n\nSource: panel of 400 households\n";
    let document = csv(text);
    let table = only_table(&document);
    assert_eq!(table.header_row, Some(5));
    assert_eq!(table.preamble.iter().map(|line| line.row).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(shown(table, "sales"), ["3715610", "3526026"]);
    let totals = &table.totals[0];
    assert_eq!((totals.row, totals.label.as_str()), (8, "Total"));
    assert_eq!(totals.values, [None, None, Some(7_241_636.0), Some(1_466_214.0)]);
    assert_eq!((table.footer[0].row, table.footer[0].text.as_str()), (10, "Source: panel of 400 households"));
}

#[test]
fn a_product_called_total_is_no_total() {
    let document = csv("name,brand,units\nYogurt,Fage,5\nTotal 0% yogurt,Fage,7\n");
    let table = only_table(&document);
    assert!(table.totals.is_empty());
    assert_eq!(table.rows, 2);
}

#[test]
fn subtotals_within_the_data_are_told() {
    let mut text = "segment,units\nClassic,1\nSubtotal,1\n".to_owned();
    text.push_str(&"Premium,2\n".repeat(40));
    let document = csv(&text);
    let table = only_table(&document);
    assert_eq!(table.rows, 42);
    assert!(table.notes.iter().any(|note| note.code == NoteCode::Subtotals && note.message.contains("rows 3")));
}

#[test]
fn ragged_rows_are_told_with_their_rows() {
    let mut text = "a,b,c\n".to_owned();
    text.push_str(&"1,2,3\n".repeat(30));
    text.push_str("4,5\n6,7,8,9\n1,2,3\n");
    let document = csv(&text);
    let table = only_table(&document);
    assert_eq!(table.rows, 32, "the long row's cells may be shifted, so it is not in the data");
    assert_eq!(table.problems.total, 2);
    assert_eq!(
        (table.problems.listed[0].row, table.problems.listed[0].why),
        (32, Why::ShortRow { cells: 2, expected: 3 })
    );
    let long = &table.problems.listed[1];
    assert_eq!((long.row, long.why), (33, Why::LongRow { cells: 4, expected: 3 }));
    assert_eq!(long.value, "6 | 7 | 8 | 9");
    assert_eq!(table.row_number(31), 34);
}

#[test]
fn blank_lines_and_quoted_line_breaks_keep_the_row_numbers_of_a_spreadsheet() {
    let document = csv("a,b\r\n\r\n1,\"x\r\ny\"\r\n\r\n\r\n2,z");
    let table = only_table(&document);
    assert_eq!((table.row_number(0), table.row_number(1)), (3, 6));
}

#[test]
fn money_percent_and_negatives_are_numbers_with_a_unit() {
    let document = csv("m,p,e\n\"$1,200.50\",12.5%,5 €\n($3.20),-4%,6 €\n-$4,0%,7 €\n");
    let table = only_table(&document);
    assert_eq!(shown(table, "m"), ["1200.5", "-3.2", "-4"]);
    assert_eq!(table.columns[0].unit, Some(Unit::Currency("$".to_owned())));
    assert_eq!(shown(table, "p"), ["0.125", "-0.04", "0"]);
    assert_eq!(table.columns[1].unit, Some(Unit::Percent));
    assert_eq!((shown(table, "e"), table.columns[2].kind), (vec!["5".into(), "6".into(), "7".into()], Kind::Integer));
}

#[test]
fn two_currencies_or_percent_beside_numbers_stay_text() {
    let document = csv("m,p\n$5,12%\n€6,12\n");
    let table = only_table(&document);
    assert_eq!(kinds(table), [("m", Kind::Text), ("p", Kind::Text)]);
    let codes: Vec<NoteCode> = table.notes.iter().map(|note| note.code).collect();
    assert_eq!(codes, [NoteCode::MixedCurrencies, NoteCode::MixedPercent]);
}

#[test]
fn an_ambiguous_date_order_stays_text_until_one_cell_proves_it() {
    let document = csv("d,n\n03/04/2026,1\n05/06/2026,2\n");
    let table = only_table(&document);
    assert_eq!(table.columns[0].kind, Kind::Text);
    assert_eq!(table.notes[0].code, NoteCode::AmbiguousDates);
    for (proof, first) in [("25/06/2026", "day 20546"), ("06/25/2026", "day 20516")] {
        let document = csv(format!("d,n\n03/04/2026,1\n{proof},2\n"));
        let table = only_table(&document);
        assert_eq!((table.columns[0].kind, shown(table, "d")[0].as_str()), (Kind::Date, first), "{proof}");
    }
}

#[test]
fn compact_dates_need_a_header_that_says_so() {
    let document = csv("week_ending,article\n20260131,20260131\n20260207,20260207\n");
    assert_eq!(kinds(only_table(&document)), [("week_ending", Kind::Date), ("article", Kind::Integer)]);
}

#[test]
fn a_few_wrong_cells_are_told_and_do_not_turn_a_column_to_text() {
    let mut text = "units,day\n".to_owned();
    text.push_str(&"1,2026-01-31\n".repeat(60));
    text.push_str("unknown,2026-02-31\nn/a,-\n2,2026-01-31\n");
    let document = csv(&text);
    let table = only_table(&document);
    assert_eq!(kinds(table), [("units", Kind::Integer), ("day", Kind::Date)]);
    let told: Vec<_> =
        table.problems.listed.iter().map(|problem| (problem.row, problem.value.as_str(), problem.why)).collect();
    assert_eq!(told, [(62, "unknown", Why::NotA(Kind::Integer)), (62, "2026-02-31", Why::NotA(Kind::Date))]);
    assert_eq!(table.columns[0].nulls, 2);
}

#[test]
fn an_id_with_letters_keeps_its_column_text() {
    let mut text = "store,units\n".to_owned();
    text.push_str(&"101,1\n".repeat(99));
    text.push_str("B99,1\n101,1\n");
    let document = csv(&text);
    assert_eq!(only_table(&document).columns[0].kind, Kind::Text);
}

#[test]
fn a_letter_among_digits_is_one_more_code() {
    let text = format!("display,mailer\n{}A,0\n", "1,0\n2,D\n3,0\n".repeat(40));
    let document = csv(text);
    let table = only_table(&document);
    assert_eq!(kinds(table), [("display", Kind::Text), ("mailer", Kind::Text)]);
    assert_eq!(table.problems.total, 0);
}

#[test]
fn thousands_that_nothing_proves_are_told() {
    let document = csv("a\tb\n\"1,234\"\tx\n\"5,678\"\ty\n");
    let table = only_table(&document);
    assert_eq!(shown(table, "a"), ["1234", "5678"]);
    assert_eq!(table.notes[0].code, NoteCode::AmbiguousNumbers);
}

#[test]
fn a_table_without_header_gets_numbered_columns() {
    let document = csv("1,2,3\n4,5,6\n");
    let table = only_table(&document);
    assert_eq!((table.header_row, table.rows), (None, 2));
    assert_eq!(table.columns[2].name, "column_3");
    assert_eq!(table.notes[0].code, NoteCode::NoHeader);
}

#[test]
fn repeated_headers_are_told_apart() {
    let document = csv("Sales,Sales,,Sales_2\nx,2,3,4\n");
    let table = only_table(&document);
    let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["Sales", "Sales_2", "column_3", "Sales_2_2"]);
    assert!(table.notes.iter().any(|note| note.code == NoteCode::HeaderNames));
}

#[test]
fn a_utf16_file_of_500_columns_is_read() {
    let header: Vec<String> = (0..500).map(|column| format!("week {column}")).collect();
    let row: Vec<String> = (0..500).map(|column| column.to_string()).collect();
    let text = format!("{}\n{}\n", header.join(","), row.join(","));
    let document = csv(utf16(&text, false));
    let table = only_table(&document);
    assert_eq!((table.columns.len(), table.rows), (500, 1));
    assert_eq!(shown(table, "week 499"), ["499"]);
}

#[test]
fn rows_come_in_batches_of_8192() {
    let mut text = "id,units\n".to_owned();
    for row in 0..20_000 {
        text.push_str(&format!("A{row},{row}\n"));
    }
    let document = csv(&text);
    let table = only_table(&document);
    let sizes: Vec<usize> = table.batches.iter().map(arrow::record_batch::RecordBatch::num_rows).collect();
    assert_eq!(sizes, [8192, 8192, 3616]);
    assert_eq!(shown(table, "units")[19_999], "19999");
}

#[test]
fn an_empty_file_is_a_note() {
    for text in ["", "\n\n", "\u{feff}", ",,,\n"] {
        let document = csv(text);
        assert!(document.tables.is_empty());
        assert_eq!(document.notes[0].code, NoteCode::NoTable);
    }
}

#[test]
fn refusals_name_the_thing_the_cause_and_the_next_step() {
    let refusal = |bytes: &[u8], limits: &Limits| read_bytes(bytes, "pos.csv", Format::Csv, limits).unwrap_err();
    let limits = Limits { max_rows: 2, max_columns: 3, max_record_bytes: 1000, ..Limits::default() };
    let error = refusal(b"a,b\n1,\0\0\0\n", &limits);
    assert!(matches!(error, IngestError::NotText { .. }));
    assert_eq!(error.to_string(), "pos.csv is no text: byte 6 is zero; export it as CSV in UTF-8");
    let error = refusal(b"a,b\n1,2\n3,4\n5,6\n", &limits);
    assert_eq!(error.to_string(), "pos.csv has 3 rows, the limit is 2: split it, or ask for a higher limit");
    let error = refusal(b"a,b,c,d\n1,2,3,4\n", &limits);
    assert!(error.to_string().starts_with("row 1 of pos.csv has 4 columns, the limit is 3"), "{error}");
    let open = format!("a,b\n1,\"{}", "x\n".repeat(500_000));
    let error = refusal(open.as_bytes(), &limits);
    assert!(error.to_string().contains("a quote opens there and does not close"), "{error}");
}
