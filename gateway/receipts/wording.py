"""The words on a receipt, in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.receipts.model import Copy, Cvm, Language
from nodes.authorization.entry_modes import EntryMode
from nodes.authorization.model import Outcome

EN, ZH = Language.ENGLISH, Language.CHINESE

COPIES: Mapping[Copy, Mapping[Language, str]] = {
    Copy.MERCHANT: {EN: "MERCHANT COPY", ZH: "商户存根"},
    Copy.CUSTOMER: {EN: "CUSTOMER COPY", ZH: "持卡人存根"},
}
ENTRIES: Mapping[EntryMode | None, Mapping[Language, str]] = {
    EntryMode.MANUAL: {EN: "Keyed in", ZH: "手工输入"},
    EntryMode.STRIPE: {EN: "Magnetic stripe", ZH: "磁条"},
    EntryMode.CONSUMER_QR: {EN: "QR code", ZH: "二维码"},
    EntryMode.MERCHANT_QR: {EN: "QR code", ZH: "二维码"},
    EntryMode.CHIP: {EN: "Chip", ZH: "插卡"},
    EntryMode.CONTACTLESS: {EN: "Contactless", ZH: "挥卡"},
    EntryMode.FALLBACK: {EN: "Stripe (fallback)", ZH: "磁条（降级）"},
    EntryMode.ECOMMERCE: {EN: "Online", ZH: "网上支付"},
    None: {EN: "Other", ZH: "其他"},
}
CVMS: Mapping[Cvm, Mapping[Language, str]] = {
    Cvm.PIN: {EN: "PIN", ZH: "密码"},
    Cvm.SIGNATURE: {EN: "Signature", ZH: "签名"},
    Cvm.NONE: {EN: "None needed", ZH: "免密免签"},
}
KINDS: Mapping[str, Mapping[Language, str]] = {
    "purchase": {EN: "SALE", ZH: "消费"},
    "authorization": {EN: "PRE-AUTHORIZATION", ZH: "预授权"},
    "increment": {EN: "INCREMENT", ZH: "追加预授权"},
    "capture": {EN: "COMPLETION", ZH: "预授权完成"},
    "void": {EN: "VOID", ZH: "消费撤销"},
    "refund": {EN: "REFUND", ZH: "退货"},
    "reversal": {EN: "REVERSAL", ZH: "冲正"},
    "advice": {EN: "OFFLINE SALE", ZH: "脱机消费"},
    "top_up": {EN: "TOP-UP", ZH: "充值"},
    "load": {EN: "TOP-UP", ZH: "充值"},
    "balance_inquiry": {EN: "BALANCE INQUIRY", ZH: "余额查询"},
}
#: Kinds by which money comes back to the holder.
GIVEN_BACK = frozenset({"void", "refund", "reversal"})

LABELS: Mapping[str, Mapping[Language, str]] = {
    "merchant": {EN: "Merchant no.", ZH: "商户编号"},
    "terminal": {EN: "Terminal no.", ZH: "终端编号"},
    "store": {EN: "Store", ZH: "门店"},
    "acquirer": {EN: "Acquirer", ZH: "收单机构"},
    "issuer": {EN: "Issuer", ZH: "发卡机构"},
    "card": {EN: "Card", ZH: "卡号"},
    "entry": {EN: "Entry", ZH: "读卡方式"},
    "cvm": {EN: "Verified by", ZH: "验证方式"},
    "batch": {EN: "Batch", ZH: "批次号"},
    "stan": {EN: "Trace no.", ZH: "凭证号"},
    "code": {EN: "Auth. code", ZH: "授权码"},
    "rrn": {EN: "Reference", ZH: "参考号"},
    "original": {EN: "Original ref.", ZH: "原参考号"},
    "time": {EN: "Time", ZH: "日期时间"},
    "amount": {EN: "AMOUNT", ZH: "金额"},
    "requested": {EN: "Asked for", ZH: "请求金额"},
    "aid": {EN: "AID", ZH: "AID"},
    "application": {EN: "Application", ZH: "应用"},
    "atc": {EN: "ATC", ZH: "ATC"},
    "approved": {EN: "APPROVED", ZH: "交易成功"},
    "partial": {EN: "PARTLY APPROVED", ZH: "部分批准"},
    "declined": {EN: "DECLINED", ZH: "交易失败"},
    "offline": {EN: "Taken offline", ZH: "脱机交易"},
    "duplicate": {EN: "*** DUPLICATE ***", ZH: "*** 重打印 ***"},
    "signature": {EN: "Signature", ZH: "持卡人签名"},
    "agreed": {
        EN: "I agree to pay the above amount",
        ZH: "本人确认以上交易，同意记入本卡账户",
    },
    "proof": {EN: "Scan to check this payment", ZH: "扫码核验本笔交易"},
    "promised": {EN: "Provable by", ZH: "最迟上链"},
    "no_proof": {EN: "This receipt carries no proof", ZH: "本凭条无上链凭证"},
}


def label(name: str, language: Language) -> str:
    """A label in that language."""
    return LABELS[name][language]


def kind_name(kind: str, language: Language) -> str:
    """What the transaction is called; its own name where there is no word for it."""
    return KINDS.get(kind, {language: kind.upper()})[language]


_ASK_ISSUER = {EN: "ask the card's issuer", ZH: "请联系发卡机构"}
_TRY_AGAIN = {EN: "try again later", ZH: "请稍后再试"}
_CARD_NUMBER = {EN: "card number not valid", ZH: "卡号无效"}
_CARD_READ = {EN: "the card could not be read", ZH: "读卡失败"}
_MERCHANT = {EN: "not permitted here", ZH: "此商户或终端不允许"}
_NOT_PERMITTED = {EN: "not permitted with this card", ZH: "此卡不允许该交易"}
_ORIGINAL = {EN: "the original doesn't fit", ZH: "原交易不符"}
_LIMIT = {EN: "over a limit", ZH: "超出限额或次数"}
_AMOUNT = {EN: "amount or currency not valid", ZH: "金额或币种无效"}
#: Why a payment was declined, for whoever holds the paper. That a card was reported lost or stolen,
#: or is taken for a copy, no paper says.
REASONS: Mapping[Outcome, Mapping[Language, str]] = {
    **dict.fromkeys(
        (Outcome.OVERLOADED, Outcome.SYSTEM_ERROR, Outcome.DEADLINE_PASSED), _TRY_AGAIN
    ),
    **dict.fromkeys(
        (
            *(Outcome.CARD_LOST, Outcome.CARD_STOLEN, Outcome.CARD_BLOCKED),
            *(Outcome.ACCOUNT_FROZEN, Outcome.OFFLINE_CLONE, Outcome.OFFLINE_RECORD_INVALID),
            *(Outcome.CRYPTOGRAM_WRONG, Outcome.CHECK_VALUE_WRONG, Outcome.RULE_DECLINED),
        ),
        _ASK_ISSUER,
    ),
    **dict.fromkeys(
        (Outcome.CARD_NUMBER_INVALID, Outcome.CARD_UNKNOWN, Outcome.ISSUER_UNKNOWN), _CARD_NUMBER
    ),
    **dict.fromkeys((Outcome.MALFORMED, Outcome.KEY_REUSED, Outcome.CHIP_DATA_INVALID), _CARD_READ),
    **dict.fromkeys((Outcome.TERMINAL_NOT_PERMITTED, Outcome.MERCHANT_NOT_PERMITTED), _MERCHANT),
    **dict.fromkeys(
        (
            *(Outcome.TRANSACTION_NOT_SUPPORTED, Outcome.CARD_NOT_PERMITTED),
            *(Outcome.ENTRY_NOT_PERMITTED, Outcome.FALLBACK_NOT_PERMITTED),
        ),
        _NOT_PERMITTED,
    ),
    **dict.fromkeys(
        (
            *(Outcome.ORIGINAL_NOT_FOUND, Outcome.ORIGINAL_MISMATCH, Outcome.ALREADY_REVERSED),
            *(Outcome.HOLD_ENDED, Outcome.OVER_ORIGINAL_AMOUNT, Outcome.REVERSED_BEFORE_ARRIVAL),
        ),
        _ORIGINAL,
    ),
    **dict.fromkeys((Outcome.AMOUNT_LIMIT, Outcome.COUNT_LIMIT, Outcome.USES_EXHAUSTED), _LIMIT),
    **dict.fromkeys((Outcome.AMOUNT_INVALID, Outcome.CURRENCY_NOT_PERMITTED), _AMOUNT),
    Outcome.UNDER_DISPUTE: {EN: "under dispute", ZH: "交易争议处理中"},
    Outcome.CARD_EXPIRED: {EN: "the card has expired", ZH: "卡已过期"},
    Outcome.CODE_NOT_VALID: {EN: "the code is used or expired", ZH: "付款码已使用或过期"},
    Outcome.PIN_TRIES_EXCEEDED: {EN: "too many wrong PINs", ZH: "密码错误次数超限"},
    Outcome.PIN_REQUIRED: {EN: "PIN needed", ZH: "需要输入密码"},
    Outcome.PIN_WRONG: {EN: "wrong PIN", ZH: "密码错误"},
    Outcome.CVM_REQUIRED: {EN: "PIN or signature needed", ZH: "需要密码或签名"},
    Outcome.INSUFFICIENT_FUNDS: {EN: "not enough funds", ZH: "余额不足"},
    Outcome.ISSUER_UNAVAILABLE: {EN: "issuer not reached", ZH: "发卡机构无应答"},
}


def reason_name(outcome: str, language: Language) -> str:
    """Why it was declined; an answer that is no outcome of the books' stands as it is."""
    try:
        return REASONS[Outcome(outcome)][language]
    except (ValueError, KeyError):
        return outcome
