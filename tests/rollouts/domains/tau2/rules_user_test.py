"""The user who follows rules: what they do for which words, what they say, and when they stop. Tools answer by hand."""

import asyncio

import pytest

from rollouts.domains.tau2.rules_user import PATIENCE, RulesUser
from rollouts.domains.tau2.world import Action, Result, find_stop

KNOWN = "You are John Smith with phone number 555-123-2002. You are currently abroad in France."
NETWORK = """Airplane Mode: ON
SIM Card Status: active
Mobile Data Enabled: Yes
Data Roaming Enabled: No"""


class Phone:
    """Answers tools, and keeps what was used."""

    def __init__(self, **answers):
        self.answers = {
            "check_network_status": NETWORK,
            "run_speed_test": "Speed test failed: No Connection.",
        } | answers
        self.used = []

    def __call__(self, calls):
        self.used += calls
        return [Result(self.answers.get(call.name, f"<{call.name}>"), False) for call in calls]


def talk(*said, intent="mobile_data", phone=None, seed=0):
    """What the user says to each of `said`, and the phone."""
    user, phone = RulesUser(intent, KNOWN, seed), phone or Phone()

    async def run():
        return [await user.speak(words, phone) for words in ("Hi! How can I help you today?", *said)]

    return asyncio.run(run())[1:], phone


def used(words, **answers):
    """The tools that a user uses for some words."""
    phone = Phone(**answers)
    talk(words, phone=phone)
    return [call.name if not call.arguments else call for call in phone.used]


APP = {"app_name": "messaging"}
SPEED = "run_speed_test"


@pytest.mark.parametrize(
    ("words", "tools"),
    [
        ("Please check your network status.", ["check_network_status"]),
        ("Could you tell me what the status bar shows?", ["check_status_bar"]),
        ("Is airplane mode on?", ["check_network_status"]),
        ("Please turn airplane mode off.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Please turn airplane mode on.", ["check_network_status"]),  # it is
        ("Toggle airplane mode, please.", ["toggle_airplane_mode", SPEED]),
        ("Please enable data roaming.", ["check_network_status", "toggle_roaming", SPEED]),
        ("Please turn on mobile data.", ["check_network_status"]),  # it is
        ("Please turn off mobile data.", ["check_network_status", "toggle_data", SPEED]),
        ("Please turn data saver off.", ["check_data_restriction_status"]),
        ("Please re-seat your SIM card.", ["reseat_sim_card", SPEED]),
        ("Check your SIM card, please.", ["check_sim_status"]),
        ("Please reset the APN settings.", ["reset_apn_settings", SPEED]),
        ("Now reboot your device.", ["reboot_device", SPEED]),
        ("Please disconnect the VPN.", ["disconnect_vpn", SPEED]),
        (
            "Set your network mode to 4G/5G.",
            [Action("set_network_mode_preference", {"mode": "4g_5g_preferred"}), SPEED],
        ),
        (
            "Grant the messaging app the storage permission.",
            [Action("grant_app_permission", {**APP, "permission": "storage"}), SPEED],
        ),
        ("Which permissions does the messaging app have?", [Action("check_app_permissions", APP)]),
        ("Please pay the bill.", ["check_payment_request", "make_payment", SPEED]),
        ("Please run a speed test.", [SPEED]),
        ("Can you send an MMS?", ["can_send_mms"]),
        ("I have enabled roaming on your line. Please try again.", [SPEED]),
        ("I have looked at the APN settings of others.", []),
        ("I have enabled roaming, please turn on data roaming.", ["check_network_status", "toggle_roaming", SPEED]),
        ("I have added 2.0 GB of data to your line, is it working now?", [SPEED]),
        ("Have a nice day.", []),
        ("Please do not turn on data saver.", []),
        ("Don't forget to turn off airplane mode.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Please restart your phone without removing the SIM card.", ["reboot_device", SPEED]),
        ("Toggle airplane mode off.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Please toggle airplane mode on your phone.", ["toggle_airplane_mode", SPEED]),
        ("Airplane mode should not be on.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Make sure that airplane mode is not on.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Make sure that data roaming is on.", ["check_network_status", "toggle_roaming", SPEED]),
        ("Is your SIM card set correctly?", ["check_sim_status"]),
        ("Please check that your APN is set correctly.", ["check_apn_settings"]),
        ("Please verify you can turn on data roaming.", ["check_network_status"]),
        ("Turn mobile data off and on again.", ["check_network_status", "toggle_data", "toggle_data", SPEED]),
        ("Turn airplane mode on and then off again.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Please power cycle your phone.", ["reboot_device", SPEED]),
        ("Turn your phone off and on again.", ["reboot_device", SPEED]),
        ("Please switch off your device, then turn it on.", ["reboot_device", SPEED]),
        ("If airplane mode is on, please turn it off.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Is data roaming on? If not, turn it on.", ["check_network_status", "toggle_roaming", SPEED]),
        ("I have reset the APN settings and roaming.", []),
    ],
)
def test_what_is_asked_for_is_done(words, tools):
    assert used(words) == tools


@pytest.mark.parametrize(
    "words",
    [
        "Please turn airplane mode off. Then restart your phone.",
        "Please turn airplane mode off and restart your phone.",
        "Please turn off airplane mode, data saver and Wi-Fi calling.",
    ],
)
def test_one_thing_at_a_time(words):
    (said,), phone = talk(words)
    assert [call.name for call in phone.used] == ["check_network_status", "toggle_airplane_mode", SPEED]
    assert said.endswith("One thing at a time, please.")


def test_the_user_says_what_the_phone_says():
    (said,), _ = talk("Please check your network status.")
    assert said == NETWORK
    (said,), _ = talk("Please restart your phone.")
    assert said == "<reboot_device> Speed test failed: No Connection."


def test_questions_are_answered_from_the_scenario():
    said, phone = talk(
        "What is your phone number?",
        "May I have your name, and are you travelling?",
        "Your data is used up. May I refuel 2.0 GB?",
        "Would another plan suit you?",
        "Could you provide your phone number and email?",
        "Please tell me your phone number so that I can look at the line.",
        "I need your phone number first.",
    )
    assert said == [
        "My phone number is 555-123-2002.",
        "My name is John Smith. I am abroad in France.",
        "Yes, please refuel 2.0 GB of data.",
        "I do not want to change my plan.",
        "My phone number is 555-123-2002. I do not have that at hand.",
        "My phone number is 555-123-2002.",
        "My phone number is 555-123-2002.",
    ]
    assert phone.used == []


@pytest.mark.parametrize(
    ("intent", "tool", "good"),
    [
        ("service", "check_status_bar", "Status Bar: 📶⁴ Excellent | 5G"),
        ("mobile_data", SPEED, "Speed Test Result: 275.00 Mbps (Excellent). Connection is very fast."),
        ("mms", "can_send_mms", "Your messaging app can send MMS messages."),
    ],
)
def test_the_user_stops_when_the_trouble_is_over_and_not_before(intent, tool, good):
    bad = {
        "check_status_bar": "Status Bar: 📵 No Signal",
        SPEED: "Speed Test Result: 50.00 Mbps (Good). Fine.",
        "can_send_mms": "Your messaging app cannot send MMS messages.",
    }
    (said,), _ = talk("Please restart your phone.", intent=intent, phone=Phone(**bad))
    assert not find_stop(said)
    (said,), phone = talk("Please restart your phone.", intent=intent, phone=Phone(**bad | {tool: good}))
    assert find_stop(said) and phone.used[-1] == Action(tool, {})


def test_frustration_comes_with_the_second_attempt_in_vain():
    said, _ = talk("Please restart your phone.", "Please restart your phone.")
    assert "sadly" not in said[0] and said[1].endswith("That did not help, sadly.")


def test_a_user_who_is_transferred_says_so_and_hears_no_stop_of_others():
    (said,), _ = talk("YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON.")
    assert said.endswith("###TRANSFER###")
    (said,), _ = talk("I do not want to transfer you if I can fix it.")
    assert not find_stop(said)
    (said,), _ = talk("###STOP### ###TRANSFER###")
    assert not find_stop(said)


def test_patience_ends_and_comes_back_with_what_helps():
    idle = ["I am sorry."] * PATIENCE
    said, _ = talk(*idle)
    assert [find_stop(words) for words in said] == [False] * (PATIENCE - 1) + [True]
    said, _ = talk(*idle[1:], "Please restart your phone.", *idle[1:])
    assert not any(map(find_stop, said))


def test_who_asks_the_same_again_and_again_leads_nowhere():
    said, _ = talk(*["What is your phone number?"] * (PATIENCE + 1))
    assert [find_stop(words) for words in said] == [False] * PATIENCE + [True]
    said, _ = talk(*["Please restart your phone.", "Is airplane mode on?", "Please check your APN settings."] * 2)
    assert not any(map(find_stop, said))


def test_a_seed_settles_the_words_and_another_intent_is_refused():
    def open_with(seed):
        return asyncio.run(RulesUser("mms", KNOWN, seed).speak("Hi!", Phone()))

    assert open_with(3) == open_with(3) and len({open_with(seed) for seed in range(20)}) == 3
    with pytest.raises(ValueError, match="config.data.user: rules are for the intents .*, got 'x'"):
        RulesUser("x", KNOWN, 0)
